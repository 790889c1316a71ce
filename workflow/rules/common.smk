# The user's config and table of plates, read once and valid; everything else is done by `wscnn`.
import json
import re
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from shlex import quote

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

from wscnn.config import (
    complete_config,
    controls,
    from_text,
    load_layout,
    load_plates,
    schema,
    shipped,
)
from wscnn.errors import UserError


def valid(read, *arguments):
    """Return ``read(*arguments)``; a user's mistake ends the workflow in sentences."""
    try:
        return read(*arguments)
    except UserError as error:
        raise WorkflowError(f"Mend this first:\n{error}")


# Of `--config 'hits={"fdr": 0.01}'` Snakemake keeps numbers within the braces as text. What of a module's config comes
# from the command line is known to the including workflow only.
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
    HERE = quote(str(shipped("Snakefile").parent))
    shell.prefix(f'wscnn() {{{{ PYTHONPATH={HERE} python -m wscnn "$@"; }}}}; ')

IMAGES = (
    valid(load_plates, Path(config["plates"])).set_index("plate")["images"].to_dict()
)

RESULTS = f"{config['results']}/{config['screen']}"
MODEL = config["model"]["checkpoint"] or f"{RESULTS}/model"
# A model that is applied was trained elsewhere: its folds are no job of this workflow, but when they change the plates
# are scored again.
FOLDS = (
    sorted(map(str, Path(MODEL).glob("fold-*.safetensors")))
    if config["model"]["checkpoint"]
    else expand(f"{MODEL}/fold-{{fold}}.safetensors", fold=[0, 1, 2])
)
MODEL_CARD = [] if config["model"]["checkpoint"] else f"{MODEL}/README.md"


wildcard_constraints:
    plate="|".join(map(re.escape, IMAGES)),
    fold="[0-2]",


def settings(*names):
    """Return a params function for sections of the config as options of a verb: JSON, which :q quotes."""
    options = [
        part
        for name in names
        for part in (f"--{name}", json.dumps(config[name], sort_keys=True))
    ]
    return lambda wildcards: options


def repeated(flag, paths):
    """Return `flag` before each of the paths."""
    return [part for path in paths for part in (flag, path)]


@cache
def control_wells():
    """Return a digest of the control wells: training depends on these rows of the layout, not on the others."""
    layout = valid(load_layout, Path(config["layout"]), list(IMAGES))
    return sha256(controls(layout).to_csv().encode()).hexdigest()
