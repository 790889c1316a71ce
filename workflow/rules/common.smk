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
# Weights and cards. Those of a model that is applied were trained elsewhere: they are no job of this workflow, but when
# they change the plates are scored again.
FOLDS = (
    sorted(
        str(path)
        for kind in ("json", "safetensors")
        for path in Path(MODEL).glob(f"fold-*.{kind}")
    )
    if config["model"]["checkpoint"]
    else expand(
        f"{MODEL}/fold-{{fold}}.{{kind}}", fold=[0, 1, 2], kind=["safetensors", "json"]
    )
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
        for part in (
            f"--{name}",
            json.dumps(config[name], sort_keys=True, allow_nan=False),
        )
    ]
    return lambda wildcards: options


def repeated(flag, paths):
    """Return `flag` before each of the paths."""
    return [part for path in paths for part in (flag, path)]


@cache
def digest_of(*paths):
    """Return a digest of the content of files that no job makes: times of modification do not always tell a change."""
    parts = [Path(path).read_bytes() for path in paths if Path(path).is_file()]
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()


def start_files(fold):
    """Return a digest of the weights and card that training of a fold starts from; None where it starts from chance."""
    folder = config["train"]["start_from"]
    return folder and digest_of(
        *(f"{folder}/fold-{fold}.{kind}" for kind in ("safetensors", "json"))
    )


@cache
def control_wells():
    """Return a digest of the control wells: training depends on these rows of the layout, not on the others."""
    layout = valid(load_layout, Path(config["layout"]), list(IMAGES))
    return sha256(controls(layout).to_csv().encode()).hexdigest()
