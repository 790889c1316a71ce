"""The environments that jobs run in are one list."""

import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LIST = ROOT / "envs" / "requirements.txt"


def requirements() -> dict[str, Requirement]:
    lines = [line for line in LIST.read_text().splitlines() if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in map(Requirement, lines)}


def test_conda_file_and_container_install_the_list_that_pyproject_reads():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["dependencies"]
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["envs/requirements.txt"]}
    conda = yaml.safe_load((ROOT / "envs" / "environment.yaml").read_text())
    pip = next(entry["pip"] for entry in conda["dependencies"] if isinstance(entry, dict))
    # Paths in a conda file are relative to it.
    assert "-r requirements.txt" in pip
    assert (LIST.parent / "requirements.txt").samefile(LIST)
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
