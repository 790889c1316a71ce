# The user's config and table of plates, read once and valid; everything else is done by `wscnn`.
import json
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

import wscnn
from wscnn.core.config import complete_config, effective, from_text, schema
from wscnn.core.screen_tables import controls, load_layout, load_plates
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import N_FOLDS, ModelFolder, ScreenFolder
from wscnn.core.tables import LAYOUT as LAYOUT_TYPES
from wscnn.core.tables import read_table
from wscnn.core.wells import one_of
from wscnn.preflight.left import bring_back


def valid(read, *arguments):
    """Return ``read(*arguments)``; a user's mistake ends the workflow in sentences."""
    try:
        return read(*arguments)
    except UserError as error:
        raise WorkflowError(f"Fix these problems first:\n{error}")


# In `--config 'hits={"fdr": 0.01}'` Snakemake keeps numbers within the braces as text. Which part of a module's config
# comes from the command line is known to the including workflow only.
CONFIG_FILES = [Path(file) for file in workflow.configfiles]
if workflow.modifier.is_main_snakefile():
    SOURCE = str(CONFIG_FILES[0])
    typed = from_text(workflow.config_settings.config, schema("config"))
    update_config(config, typed)
else:
    SOURCE = f"config of module {workflow.modifier.namespace}"
    config = from_text(config, schema("config"))
config = valid(complete_config, config, SOURCE)

if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method:
    # Such an environment holds what wscnn needs (envs/environment.yaml); wscnn itself is this workflow's.
    HERE = quote(str(Path(wscnn.__file__).parents[1]))
    shell.prefix(f'wscnn() {{{{ PYTHONPATH={HERE} python -m wscnn "$@"; }}}}; ')

PLATES = valid(load_plates, Path(config["plates"]))
IMAGES = PLATES.set_index("plate")["images"].to_dict()

SCREEN = ScreenFolder(Path(config["results"]) / config["screen"])
QUALITIES = [SCREEN.quality(plate) for plate in IMAGES]
MODEL = (
    ModelFolder(Path(config["model"]["checkpoint"]))
    if config["model"]["checkpoint"]
    else SCREEN.model
)
DISCOVERS = config["discovery"]["method"] != "none"


# What rules depend on in the layout reaches their params by content. Jobs of a cluster read this file, too; there nothing
# is compared, and the layout of a large screen takes seconds to read.
@cache
def layout():
    """Return the layout as the user's table has it now."""
    return valid(load_layout, Path(config["layout"]), list(IMAGES))


def has_model():
    """Return whether phenotypes are trained or applied: a screen that is only explored need not have positive controls."""
    if not DISCOVERS or config["model"]["checkpoint"]:
        return True
    made = SCREEN.table("layout")
    rows = layout() if workflow.is_main_process else read_table(made, LAYOUT_TYPES)
    return bool(rows["role"].eq("positive").any())


HAS_MODEL = has_model()
# Weights and cards. Those of a model that is applied were trained elsewhere: they are no job of this workflow, but when
# they change the plates are scored again.
FOLDS = (
    sorted(map(str, [*MODEL.cards(), *MODEL.folds()]))
    if config["model"]["checkpoint"]
    else [
        str(of(k))
        for k in range(N_FOLDS * HAS_MODEL)
        for of in (MODEL.fold, MODEL.card)
    ]
)
# The comparison with simpler methods, part of the workflow where the config names some and there is a model.
BASELINE = (
    [SCREEN.table(name) for name in ("baseline", "baseline_wells", "baseline_folds")]
    if config["baseline"]["methods"] and HAS_MODEL
    else []
)
NOVELTY = [SCREEN.model.novelty] if DISCOVERS else []
# Only where the config gives no number.
SCALE = [SCREEN.scale] if config["mosaic"]["downsample"] == "auto" else []
# How plates compare with those that an applied model was trained with.
DRIFT = [SCREEN.table("drift")] if config["model"]["checkpoint"] else []
MODEL_CARD = [] if config["model"]["checkpoint"] or not HAS_MODEL else MODEL.readme


# Snakemake tries this on each file for each rule.
wildcard_constraints:
    plate=one_of(IMAGES),
    fold="|".join(map(str, range(N_FOLDS))),


# Snakemake compares the params of a rule with those of an earlier run unless they depend on input or output. So
# functions that take `output` return what a job needs but its results do not depend on, such as paths.
def settings(*names):
    """Return a params function for sections of the config as options of a command: JSON, which :q quotes."""
    options = [part for name in names for part in (f"--{name}", as_json(config[name]))]
    return lambda wildcards, output: options


def compared(*names):
    """Return a params function for what results depend on in sections of the config."""
    text = " ".join(as_json(effective(name, config[name])) for name in names)
    return lambda wildcards: text


def as_json(settings):
    """Return settings as JSON; the order of keys does not count, but that of channels does."""
    return json.dumps(dict(sorted(settings.items())), allow_nan=False)


def repeated(flag, paths):
    """Return `flag` before each of the paths."""
    return [part for path in paths for part in (flag, str(path))]


@cache
def digest_of(*paths):
    """Return a digest of the content of files that no job makes: times of modification do not always show a change."""
    parts = [Path(path).read_bytes() for path in paths if Path(path).is_file()]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def start_files(fold):
    """Return a digest of the weights and card that a fold starts from; None where it starts from random weights."""
    if config["train"]["start_from"] is None:
        return None
    folder = ModelFolder(Path(config["train"]["start_from"]))
    return digest_of(folder.fold(fold), folder.card(fold))


def encoder_start():
    """Return a digest of the encoder that this screen reuses; None where it is trained here."""
    path = config["encoder"]["start_from"]
    return path and digest_of(path, Path(path).with_suffix(".json"))


@cache
def control_wells():
    """Return a digest of the control wells: training depends on these rows of the layout, not on the others."""
    if workflow.is_main_process:
        batch = layout()["plate"].map(PLATES.set_index("plate")["batch"])
        rows = controls(layout().assign(batch=batch), config["train"]["hold_out"])
        return sha256(rows.to_csv().encode()).hexdigest()


@cache
def layout_digest():
    """Return a digest of everything that `check` writes into the screen's layout."""
    if workflow.is_main_process:
        tables = layout(), PLATES[["plate", "batch"]]
        text = "\n".join(table.to_csv(index=False) for table in tables)
        return sha256(text.encode()).hexdigest()


@cache
def excluded():
    """Return the excluded wells of each plate that has some."""
    if not workflow.is_main_process:
        return {}
    rows = layout().query("role == 'exclude'")
    return {plate: tuple(wells) for plate, wells in rows.groupby("plate")["well"]}


def excluded_wells(wildcards):
    """Return the names of a plate's excluded wells."""
    return ",".join(excluded().get(wildcards.plate, ()))


@cache
def watch():
    """Return the state of the raw images of indexed plates, determined once, when Snakemake starts."""
    from wscnn.acquisitions.originals import Watch

    return Watch(IMAGES, config["acquisition"], excluded(), SCREEN.path)


def images_state(wildcards):
    """Return a string for the state of a plate's raw images, which differs when they have changed."""
    if workflow.is_main_process:
        return watch().states[wildcards.plate]


# Before anything is compared: a plate that is listed again gets its earlier results back.
if workflow.is_main_process:
    for plate in bring_back(SCREEN.path, IMAGES):
        print(
            f"plate '{plate}' is listed again: its results are back from {SCREEN.left(plate).path}",
            file=sys.stderr,
        )
