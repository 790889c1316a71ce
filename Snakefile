# Raw plates in, hit table out. The rules only name files and call `wscnn`; config/README.md is the manual.
from snakemake.utils import min_version

min_version("9.14")


# A config named on the command line replaces this one; merged, two screens' channels would mix.
if not workflow.configfiles:

    configfile: "config/config.yaml"


container: "docker://python:3.11-slim"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/index.smk"
include: "workflow/rules/stage.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/hits.smk"
include: "workflow/rules/report.smk"


# Without it the folds of a model that is applied are files like others, also where it was trained on this screen.
if not config["model"]["checkpoint"]:

    include: "workflow/rules/train.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/hits.parquet",
        f"{RESULTS}/report.html",
        MODEL_CARD,
