# The user's config and table of plates, read once and valid; everything else is done by `wscnn`.
import json
import re
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path

from snakemake.exceptions import WorkflowError

from wscnn.config import complete_config, controls, load_layout, load_plates
from wscnn.errors import UserError


def valid(read, *arguments):
    """Return ``read(*arguments)``; a user's mistake ends the workflow in sentences."""
    try:
        return read(*arguments)
    except UserError as error:
        raise WorkflowError(f"Mend this first:\n{error}")


config = valid(complete_config, config, str(workflow.configfiles[0]))
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
