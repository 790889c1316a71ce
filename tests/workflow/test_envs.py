"""The environments that jobs run in are one list."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from runs import command, environment

ROOT = Path(__file__).parents[2]
LIST = ROOT / "envs" / "requirements.txt"


def requirements() -> dict[str, Requirement]:
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_the_container_installs_the_list_that_pyproject_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["envs/requirements.txt"]}
    container = (ROOT / "envs" / "Containerfile").read_text()
    assert "pip install --no-cache-dir -r envs/requirements.txt" in container


def test_the_python_of_the_environments_is_one_that_the_package_admits():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())
    python = next(entry.split("=")[1] for entry in conda["dependencies"] if str(entry).startswith("python="))
    assert Requirement(f"python{project['project']['requires-python']}").specifier.contains(python)
    assert f"FROM python:{python}-slim" in (ROOT / "envs" / "Containerfile").read_text()


def test_every_requirement_has_an_upper_bound_and_torch_stops_at_2_13_0():
    for requirement in requirements().values():
        assert any(bound.operator in ("<", "<=") for bound in requirement.specifier), requirement
    torch = requirements()["torch"].specifier
    assert Version("2.13.0") in torch and Version("2.13.0+cpu") in torch
    assert Version("2.13.1") not in torch and Version("2.14.0") not in torch


def test_the_conda_file_names_no_other_file_and_lists_all_requirements():
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())
    (pip,) = (entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    assert pip == lines


def test_jobs_run_in_the_environment_that_conda_makes_of_the_one_file(screen: Path, tmp_path: Path):
    folder = Path(shutil.copytree(screen, tmp_path / "screen"))
    (tmp_path / "conda" / "bin").mkdir(parents=True)
    shutil.copy(Path(__file__).parent / "conda_stand_in.sh", tmp_path / "conda" / "bin" / "conda")
    (tmp_path / "conda" / "bin" / "conda").chmod(0o755)
    (tmp_path / "conda" / "bin" / "activate").write_text('export PATH="$1/bin:$PATH"\n')
    said = tmp_path / "said.txt"
    variables = environment() | {
        "STAND_IN_LOG": str(said),
        "STAND_IN_PREFIX": str(tmp_path / "conda"),
        "STAND_IN_PYTHON": sys.executable,
    }
    variables["PATH"] = f"{tmp_path / 'conda' / 'bin'}:{variables['PATH']}"
    line = command("--configfile", "config.yaml", "--sdm", "conda", "--until", "index")
    done = subprocess.run(line, cwd=folder, env=variables, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr + said.read_text()
    assert (folder / "results/small/index/plate1.parquet").is_file()
    lines = said.read_text().splitlines()
    assert any("env create" in line for line in lines) and lines.count("ran") == 2, lines
