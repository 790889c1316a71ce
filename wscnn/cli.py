"""The command line: one command per stage, each with explicit inputs and outputs.

A rule of the workflow calls exactly these commands, so the line in a job's log can be run again by hand. Modules are
imported inside the commands: `wscnn --help` does not wait for pandas, nor the light stages for torch.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from wscnn import __version__
from wscnn.core.errors import UserError
from wscnn.core.screen_folder import N_FOLDS
from wscnn.export.targets import TARGETS

# Threads of torch that wait for each other sleep instead of spinning: on a shared machine, spinning makes a step
# several times as long. OpenMP reads this when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_PATH = click.Path(path_type=Path)
_EXCLUDED = "The layout, as `check` writes it: wells with role exclude are left out, their files not opened."

_MENDS = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room and start again: what is finished is kept"
) | dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "correct the permissions and start again")


class _Verbs(click.Group):
    """Commands in the order of the data; a user's mistake ends in sentences instead of a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        # Clusters ask a job to end before they kill it, so that unfinished output is removed.
        signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
        try:
            return super().invoke(ctx)
        except UserError as error:
            for problem in error.problems:
                click.echo(f"error: {problem}", err=True)
            sys.exit(1)
        except OSError as error:
            advice = _MENDS.get(error.errno or 0)
            if error.filename is None and advice is None:
                raise
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"error: {where}{error.strerror}{f'; {advice}' if advice else ''}", err=True)
            sys.exit(1)


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="wscnn")
def main() -> None:
    """Find rare cellular phenotypes in high-content screens from well-level labels alone.

    The stages, in the order of the data: check, index, scale, stage, encode, novelty, train,
    score, hits, report.
    `snakemake` runs them all from a config file; each can be run by hand. Settings are the sections of the config,
    given as JSON; keys left out take the defaults.

    \b
    From images to hits:
      wscnn check config/config.yaml
      snakemake --cores all
      wscnn show results/my_screen
    """


def _settings(name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds the option for one section of the config."""

    def parse(_ctx: click.Context, _option: click.Parameter, text: str) -> dict[str, Any]:
        from wscnn.core.config import section

        return section(name, text)

    default = '{"channels": {"1": "1"}}' if name == "acquisition" else "{}"
    return click.option(
        f"--{name}",
        callback=parse,
        default=default,
        metavar="JSON",
        required=name == "acquisition",
        help=f"The config's section '{name}'.",
    )


def _path(flag: str, text: str, **more: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a required option for a path."""
    return click.option(flag, type=_PATH, required=True, help=text, **more)


@main.command()
@click.argument("config", type=_PATH)
@click.option("--layout", type=_PATH, help="Write the layout, one row per plate and well, to this Parquet file.")
@click.option("--controls", type=_PATH, help="Write the control wells, which training depends on, to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def check(config: Path, layout: Path | None, controls: Path | None, as_json: bool) -> None:
    """Check config, tables and file names before anything runs.

    All problems are reported at once, with what to do. The exit status is 0 if there are none (there may be warnings),
    1 if there are, and 2 for a wrong command line.
    """
    from wscnn.preflight.check import check_screen, write_screen

    try:
        screen = check_screen(config)
    except UserError as error:
        if not as_json:
            raise
        click.echo(json.dumps({"problems": error.problems, "warnings": []}, indent=1, allow_nan=False))
        sys.exit(1)
    write_screen(screen, layout, controls)
    if as_json:
        click.echo(json.dumps({"problems": [], "warnings": screen.warnings}, indent=1, allow_nan=False))
        return
    for warning in screen.warnings:
        click.echo(f"warning: {warning}", err=True)
    n = len(screen.warnings)
    but = f", but {n} warning{'s' if n > 1 else ''}" if n else ""
    click.echo(f"{config}: {len(screen.plates)} plates, {len(screen.layout)} wells, no problem found{but}", err=True)


@main.command()
@click.argument("folder", type=_PATH)
@click.option("--images", type=_PATH, required=True, help="Folder of the images: one plate, or several in folders.")
@click.option("--pattern", help="A regular expression for the file names, where they are not recognised.")
@click.option("--table", type=_PATH, help="A table of the images, where no pattern can say what their names mean.")
@click.option(
    "--wells",
    type=click.Choice(["6", "12", "24", "48", "96", "384", "1536"]),
    help="Wells of a plate, where names number the wells.",
)
@click.option("--plate-map", type=_PATH, help="What was done to each well: a grid or a table (.xlsx, CSV, TSV).")
@click.option("--perturbation", metavar="COLUMN", help="The column of the plate map that holds the perturbations.")
@click.option("--negative", multiple=True, metavar="NAME", help="A negative control in the plate map; repeatable.")
@click.option("--positive", multiple=True, metavar="NAME", help="A positive control in the plate map; repeatable.")
def init(
    folder: Path,
    images: Path,
    pattern: str | None,
    table: Path | None,
    wells: str | None,
    plate_map: Path | None,
    perturbation: str | None,
    negative: tuple[str, ...],
    positive: tuple[str, ...],
) -> None:
    """Start a screen's FOLDER from its images: config.yaml, plates.tsv and layout.tsv.

    The instrument is recognised, or a pattern is proposed from the names of the files; where they do not say enough,
    nothing is written and the missing option is named. Existing files are never overwritten.
    """
    from wscnn.preflight.init import make_layout, start_screen
    from wscnn.preflight.plate_map import read_plate_map
    from wscnn.preflight.recognition import describe, look_at

    if pattern and table:
        raise click.UsageError("--pattern and --table are two ways to read names; give one")
    given = read_plate_map(plate_map, perturbation) if plate_map else None
    found = look_at(images, pattern, table, int(wells) if wells else None)
    layout, notes = make_layout(found, given, negative, positive)
    written = start_screen(folder, found, layout)
    click.echo(describe(found))
    for note in notes:
        click.echo(f"layout: {note}")
    config, to_fill = folder / "config.yaml", folder / "layout.tsv"
    click.echo(f"\nwrote {', '.join(written)} in {folder}\nnext: {'complete' if notes else 'look at'} {to_fill}")
    click.echo(f"then: wscnn check {config}\n      wscnn run {config}")


_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_COUNT = click.IntRange(1, 1536)


@main.command()
@click.argument("perturbations", type=_PATH)
@click.argument("output", type=_PATH)
@click.option("--prevalence", type=_SHARE, required=True, help="Share of rare cells that an acting perturbation adds.")
@click.option("--acting", type=_SHARE, default=0.05, show_default=True, help="Share of the perturbations that act.")
@click.option("--power", type=_SHARE, default=0.8, show_default=True, help="Share of the acting ones to find.")
@click.option("--fdr", type=_SHARE, default=0.05, show_default=True, help="False discovery rate of the calls.")
@click.option("--pilot", type=_PATH, help="Results folder of a pilot, for the next four numbers.")
@click.option("--cells-per-field", type=click.FloatRange(0, min_open=True), help="Cells in a field.")
@click.option("--recall", type=_SHARE, help="Share of rare cells that are detected.")
@click.option("--background", type=_SHARE, help="Detected cells in negative controls, as a share of all.")
@click.option("--well-sd", type=click.FloatRange(0, 1), help="Its SD from well to well beyond the chance of counting.")
@click.option("--wells", type=click.Choice(["24", "48", "96", "384", "1536"]), default="384", show_default=True)
@click.option("--replicates", type=click.IntRange(1, 50), help="Plates of each perturbation; chosen where left out.")
@click.option("--negatives", type=_COUNT, help="Negative controls on a plate; chosen where left out.")
@click.option("--positives", type=_COUNT, help="Positive controls on a plate; half of the negatives where left out.")
@click.option("--fields", type=_COUNT, help="Fields in a well; chosen where left out.")
@click.option("--negative", default="negative", show_default=True, help="Name of the negative control.")
@click.option("--positive", default="positive", show_default=True, help="Name of the positive control.")
@click.option("--phenotype", default="rare", show_default=True, help="Phenotype of the positive control.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Draws the positions.")
def design(
    perturbations: Path,
    output: Path,
    prevalence: float,
    acting: float,
    pilot: Path | None,
    cells_per_field: float | None,
    recall: float | None,
    background: float | None,
    well_sd: float | None,
    wells: str,
    **settings: Any,
) -> None:
    """Design a screen of PERTURBATIONS (a table) before the experiment: OUTPUT/layout.tsv.

    Of the numbers of replicates, controls and fields that reach the power, the design with the fewest plates is taken.
    Controls are spread over rows and columns, and replicates lie at different positions.
    """
    from wscnn.design.plan import design_screen, of_pilot
    from wscnn.design.power import Assumptions

    numbers = (cells_per_field, recall, background, well_sd)
    if pilot is not None and any(number is not None for number in numbers):
        raise click.UsageError("--pilot stands for --cells-per-field, --recall, --background and --well-sd")
    if pilot is not None:
        assumed = of_pilot(pilot, prevalence, acting)
    elif cells_per_field is None or recall is None or background is None or well_sd is None:
        raise click.UsageError("give --pilot, or all of --cells-per-field, --recall, --background and --well-sd")
    else:
        assumed = Assumptions(prevalence, acting, cells_per_field, recall, background, well_sd)
    tried = design_screen(perturbations, output, assumed=assumed, wells=int(wells), **settings)
    click.echo(_in_columns(tried))


# Options of snakemake that say where jobs run, or that none does.
_WHERE = ("--cores", "-c", "--jobs", "-j", "--profile", "--executor", "-e", "--dry-run", "-n", "--unlock")


def _is_absolute(config: Path) -> bool:
    """Return whether the paths of a config's tables and results hold from any folder."""
    from wscnn.core.config import draft_config

    found, _ = draft_config(config)
    return all(Path(found.get(name, "")).is_absolute() for name in ("plates", "layout", "results"))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("config", type=_PATH)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def run(config: Path, options: tuple[str, ...]) -> None:
    """Run the workflow: snakemake with a config, and its options.

    The same as `snakemake --configfile CONFIG` in a clone, from any folder: paths in the config are relative to it.
    Where they are absolute, as `init` writes them, Snakemake works in the folder of the config, wherever it is started.
    All cores are used unless an option says where jobs run. `--profile slurm` is the profile that ships.
    """
    from wscnn.core.config import shipped

    line = ["--snakefile", str(shipped("workflow/Snakefile")), "--configfile", str(config.absolute()), *options]
    # Snakemake keeps its records of earlier jobs in its working directory: from another one it would not notice that
    # settings have changed.
    if _is_absolute(config) and not any(option.startswith(("--directory", "-d")) for option in options):
        line += ["--directory", str(config.absolute().parent)]
    if not any(option.partition("=")[0] in _WHERE or option[:2] in ("-c", "-j") for option in options):
        line += ["--cores", "all"]
    for i, option in enumerate(line[:-1]):
        if option == "--profile" and line[i + 1] == "slurm" and not Path("slurm").exists():
            line[i + 1] = str(shipped("workflow/profiles/slurm"))
    # Jobs call `wscnn`, which need not be on the path of who calls this one by its path.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.execve(sys.executable, [sys.executable, "-m", "snakemake", *line], {**os.environ, "PATH": path})


@main.command()
@click.argument("config", type=_PATH, required=False)
@click.option("--plates", type=click.IntRange(1), help="Plan from numbers alone: number of plates.")
@click.option("--wells", type=click.IntRange(1), default=384, show_default=True, help="Wells per plate.")
@click.option("--fields", type=click.IntRange(1), default=9, show_default=True, help="Fields per well.")
@click.option("--channels", type=click.IntRange(1), default=5, show_default=True, help="Channels per field.")
@click.option("--planes", type=click.IntRange(1), default=1, show_default=True, help="Planes per channel.")
@click.option("--size", type=click.IntRange(64), default=1080, show_default=True, help="Side of an image, pixels.")
@click.option("--controls", type=click.IntRange(0), default=24, show_default=True, help="Control wells per plate.")
@click.option("--measured", type=_PATH, metavar="RESULTS", help="A finished screen, whose rates are used.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan(config: Path | None, plates: int | None, measured: Path | None, as_json: bool, **numbers: int) -> None:
    """Estimate what a screen will cost before it runs: jobs, files, bytes, core-hours and GPU-hours.

    For the screen of CONFIG, from its tables and file names; or with --plates for a screen of that size, whose images
    need not be there (CONFIG then gives the settings only, and may be left out).
    """
    from wscnn.core.config import load_config, section
    from wscnn.preflight.plan import PLANNED, RATES, describe, size_by_numbers, size_of
    from wscnn.preflight.plan import measured as measure
    from wscnn.preflight.plan import plan as make

    if plates:
        settings = load_config(config) if config else {name: section(name, "{}") for name in PLANNED}
        size = size_by_numbers(plates=plates, **numbers)
    elif config:
        # torch and the readers of images take seconds to import, and numbers alone need neither.
        from wscnn.preflight.check import check_screen
        from wscnn.preflight.scale import with_factor

        screen = check_screen(config)
        settings, size = with_factor(screen.config, screen.plates, screen.layout), size_of(screen)
    else:
        raise UserError("plan: give a config, or the size of a screen, such as --plates 2000")
    rates = measure(measured) if measured else {}
    table = make(size, settings, RATES | rates)
    if as_json:
        click.echo(table.to_json(orient="records", indent=1))
        return
    click.echo(describe(table, size, rates))


@main.command()
@click.option("--plate", required=True, help="The plate's name.")
@_path("--images", "Folder of the plate's images, or an OME-Zarr plate.")
@_path("--output", "The index to write (Parquet).")
@click.option("--layout", type=_PATH, help=_EXCLUDED)
@_settings("acquisition")
def index(plate: str, images: Path, output: Path, layout: Path | None, acquisition: dict[str, Any]) -> None:
    """List a plate's images from names and metadata; no pixel is read."""
    from wscnn.acquisitions.index import index_plate
    from wscnn.core.provenance import note_version

    index_plate(plate, images, acquisition, output, layout)
    note_version(output.parent.parent, "index", plate, output)


@main.command()
@_path("--plates", "The table of plates.")
@_path("--layout", "The layout, as `check` or you wrote it.")
@_path("--output", "The scale to write (JSON).")
@_settings("acquisition")
@_settings("model")
def scale(plates: Path, layout: Path, output: Path, acquisition: dict[str, Any], model: dict[str, Any]) -> None:
    """Decide mosaic.downsample from the size of the cells on a few fields of several plates.

    Where a model is applied, its pixel size decides.
    """
    from wscnn.preflight.scale import decide_scale

    decide_scale(plates, layout, output, acquisition=acquisition, model=model)


@main.command()
@click.option("--plate", required=True, help="The plate's name.")
@_path("--index", "The plate's index.")
@_path("--images", "Folder of the plate's images, or an OME-Zarr plate.")
@_path("--store", "The OME-Zarr plate to write.")
@_path("--manifest", "The file that says what was staged, written last (JSON).")
@_path("--quality", "The table of fields and their quality to write (Parquet).")
@click.option("--layout", type=_PATH, help=_EXCLUDED)
@click.option("--scale", type=_PATH, help="The screen's scale, which mosaic.downsample: auto stands for.")
@_settings("acquisition")
@_settings("mosaic")
@_settings("illumination")
@_settings("qc")
@_settings("dask")
def stage(
    plate: str,
    index: Path,
    images: Path,
    store: Path,
    manifest: Path,
    quality: Path,
    layout: Path | None,
    scale: Path | None,
    acquisition: dict[str, Any],
    mosaic: dict[str, Any],
    illumination: dict[str, Any],
    qc: dict[str, Any],
    dask: dict[str, Any],
) -> None:
    """Write a plate as OME-Zarr, with one mosaic per well."""
    from wscnn.core.provenance import note_version
    from wscnn.staging.scale import resolved
    from wscnn.staging.stage import stage_plate

    stage_plate(
        plate,
        index,
        images,
        store,
        manifest,
        quality,
        acquisition=acquisition,
        mosaic=resolved(mosaic, scale),
        illumination=illumination,
        quality=qc,
        dask=dask,
        layout=layout,
    )
    note_version(quality.parent.parent, "stage", plate, quality)


@main.command()
@click.option("--screen", required=True, help="The screen's name, for the card.")
@click.option("--store", "stores", type=_PATH, required=True, multiple=True, help="A staged plate; repeat for each.")
@click.option(
    "--quality", "qualities", type=_PATH, required=True, multiple=True, help="Its table of fields; in the same order."
)
@_path("--output", "The encoder to write (safetensors); its card goes beside it.")
@_settings("model")
@_settings("encoder")
def encode(
    screen: str,
    stores: tuple[Path, ...],
    qualities: tuple[Path, ...],
    output: Path,
    model: dict[str, Any],
    encoder: dict[str, Any],
) -> None:
    """Pretrain the network's layers on all wells, without labels."""
    from wscnn.core.provenance import note_version
    from wscnn.encoder.encode import encode as learn

    learn(list(stores), list(qualities), output, screen=screen, model=model, encoder=encoder)
    note_version(output.parent.parent, "encode", "", output)


@main.command()
@click.option("--screen", required=True, help="The screen's name.")
@_path("--controls", "The control wells, as `check` writes them.")
@click.option("--store", "stores", type=_PATH, required=True, multiple=True, help="A staged plate; repeat for each.")
@click.option(
    "--quality", "qualities", type=_PATH, required=True, multiple=True, help="Its table of fields; in the same order."
)
@_path("--encoder", "What `encode` wrote.")
@_path("--output", "The model of novelty to write (safetensors).")
@_settings("discovery")
def novelty(
    screen: str,
    controls: Path,
    stores: tuple[Path, ...],
    qualities: tuple[Path, ...],
    encoder: Path,
    output: Path,
    discovery: dict[str, Any],
) -> None:
    """Learn what cells of negative controls look like, to find cells that differ from all of them."""
    from wscnn.core.provenance import note_version
    from wscnn.discovery.learn import learn_novelty

    learn_novelty(controls, list(stores), list(qualities), encoder, output, screen=screen, discovery=discovery)
    note_version(output.parent.parent, "novelty", "", output)


@main.command()
@click.option("--screen", required=True, help="The screen's name, for the model card.")
@click.option(
    "--fold", type=click.IntRange(0, N_FOLDS - 1), required=True, help="Which of the three rotations to train."
)
@_path("--controls", "The control wells, as `check` writes them.")
@click.option("--store", "stores", type=_PATH, required=True, multiple=True, help="A staged plate; repeat for each.")
@click.option(
    "--quality", "qualities", type=_PATH, required=True, multiple=True, help="Its table of fields; in the same order."
)
@click.option("--encoder", type=_PATH, help="What `encode` wrote, for model.architecture encoder.")
@_path("--output", "The model to write (safetensors); its card and history go beside it.")
@_settings("model")
@_settings("train")
def train(
    screen: str,
    fold: int,
    controls: Path,
    stores: tuple[Path, ...],
    qualities: tuple[Path, ...],
    encoder: Path | None,
    output: Path,
    model: dict[str, Any],
    train: dict[str, Any],
) -> None:
    """Train one fold's network on control wells.

    Started again, it resumes an interrupted run.
    """
    from wscnn.core.provenance import note_version
    from wscnn.core.screen_folder import ModelFolder
    from wscnn.training.train import train_fold

    train_fold(
        fold, controls, list(stores), list(qualities), output, screen=screen, model=model, train=train, encoder=encoder
    )
    note_version(output.parent.parent, "train", str(fold), ModelFolder(output.parent).history(fold))


@main.command()
@_path("--models", "Folder of the trained folds.")
@_path("--output", "The model card to write (Markdown).")
def card(models: Path, output: Path) -> None:
    """Write the readable model card from the cards of the folds."""
    from wscnn.reporting.model_card import write_model_card

    write_model_card(models, output)


@main.command()
@click.option("--screen", required=True, help="The screen's name, for the tables.")
@_path("--store", "The staged plate; masks and saliency are added to it.")
@_path("--quality", "The plate's table of fields and their quality.")
@click.option("--models", type=_PATH, help="Folder of the trained folds; left out where there is none.")
@_path("--wells", "The table of wells to write (Parquet).")
@_path("--fields", "The table of fields to write.")
@_path("--objects", "The table of detected objects to write.")
@click.option("--novelty", type=_PATH, help="What `novelty` wrote, to find cells unlike those of negative controls.")
@click.option("--encoder", type=_PATH, help="With --novelty: what `encode` wrote.")
@click.option("--features", type=_PATH, help="With --novelty: the table of feature vectors of novel cells to write.")
@_settings("score")
@_settings("dask")
def score(
    screen: str,
    store: Path,
    quality: Path,
    models: Path | None,
    wells: Path,
    fields: Path,
    objects: Path,
    novelty: Path | None,
    encoder: Path | None,
    features: Path | None,
    score: dict[str, Any],
    dask: dict[str, Any],
) -> None:
    """Score a plate's wells, find the rare cells and write their masks."""
    from wscnn.core.provenance import note_version
    from wscnn.scoring.score import score_plate

    score_plate(
        store,
        quality,
        models,
        wells,
        fields,
        objects,
        screen=screen,
        score=score,
        dask=dask,
        novelty=novelty,
        encoder=encoder,
        features=features,
    )
    note_version(wells.parent.parent, "score", wells.stem, wells)


@main.command()
@_path("--controls", "The control wells, as `check` writes them.")
@click.option("--store", "stores", type=_PATH, required=True, multiple=True, help="A staged plate; repeat for each.")
@click.option(
    "--quality", "qualities", type=_PATH, required=True, multiple=True, help="Its table of fields; in the same order."
)
@_path("--models", "Folder of the trained folds that are applied to these plates.")
@_path("--output", "The table to write (Parquet).")
@_settings("score")
def drift(
    controls: Path,
    stores: tuple[Path, ...],
    qualities: tuple[Path, ...],
    models: Path,
    output: Path,
    score: dict[str, Any],
) -> None:
    """Compare negative controls of plates with those that the applied model was trained with."""
    from wscnn.core.provenance import note_version
    from wscnn.scoring.drift import measure_drift

    measure_drift(controls, list(stores), list(qualities), models, output, score=score)
    note_version(output.parent, "drift", "", output)


@main.command()
@click.option(
    "--wells", type=_PATH, required=True, multiple=True, help="A table of well scores, or a folder of them; repeatable."
)
@click.option(
    "--layout", type=_PATH, help="The layout, as `check` or you wrote it; not needed where the tables hold it."
)
@_path("--output", "Folder for hits, wells, plates, suspects, doses and warnings (Parquet).")
@click.option("--warnings", type=_PATH, help="The warnings of `check`; by default the layout is checked again.")
@click.option("--models", type=_PATH, help="Folder of the model that gave the scores, to warn of its folds.")
@click.option("--scale", type=_PATH, help="The screen's scale, to warn of plates whose cells are of another size.")
@click.option("--drift", type=_PATH, help="What `drift` wrote, to warn of plates unlike those of training.")
@_settings("hits")
def hits(
    wells: tuple[Path, ...],
    layout: Path | None,
    output: Path,
    warnings: Path | None,
    models: Path | None,
    scale: Path | None,
    drift: Path | None,
    hits: dict[str, Any],
) -> None:
    """Call hits from per-well scores.

    Works on any table with the documented columns.
    """
    from wscnn.core.provenance import note_version
    from wscnn.core.screen_folder import ScreenFolder
    from wscnn.statistics.hits import call_hits

    call_hits(wells, layout, output, hits=hits, checked=warnings, models=models, scale=scale, drift=drift)
    note_version(output, "hits", "", ScreenFolder(output).table("hits"))


@main.command()
@_path("--store", "The staged plate.")
@_path("--quality", "The plate's table of fields and their quality.")
@_path("--output", "The table of nuclei to write (Parquet).")
@click.option("--nuclei", help="Channel in which nuclei are found; by default the first one.")
@_settings("dask")
def measure(store: Path, quality: Path, output: Path, nuclei: str | None, dask: dict[str, Any]) -> None:
    """Measure textbook features of a plate's nuclei, one row per nucleus."""
    from wscnn.baselines.measure import measure_plate
    from wscnn.core.provenance import note_version

    measure_plate(store, quality, output, nuclei=nuclei, dask=dask)
    note_version(output.parent.parent, "measure", output.stem, output)


@main.command()
@click.option("--cells", type=_PATH, required=True, multiple=True, help="A plate's table of nuclei; repeat for each.")
@_path("--wells", "The network's table of wells, as `hits` wrote it.")
@_path("--network", "The network's table of hits.")
@_path("--models", "Folder of the model that scored the screen: its folds are used.")
@_path("--output", "Folder for the tables (Parquet).")
@_settings("baseline")
@_settings("hits")
def baseline(
    cells: tuple[Path, ...],
    wells: Path,
    network: Path,
    models: Path,
    output: Path,
    baseline: dict[str, Any],
    hits: dict[str, Any],
) -> None:
    """Score wells by simpler methods and compare them with the network.

    Same wells, folds and hit calls: counts of nuclei, a random forest on textbook features, and their novelty.
    """
    from wscnn.baselines.contest import run_baselines
    from wscnn.core.provenance import note_version
    from wscnn.core.screen_folder import ScreenFolder

    run_baselines(cells, wells, network, models, output, baseline=baseline, calling=hits)
    note_version(output, "baseline", "", ScreenFolder(output).table("baseline"))


@main.command()
@_path("--results", "The screen's results folder.")
@_path("--output", "The report to write (HTML).")
@click.option("--models", type=_PATH, help="Folder of the model that scored the screen; by default the screen's own.")
@_settings("hits")
def report(results: Path, output: Path, models: Path | None, hits: dict[str, Any]) -> None:
    """Write the report: one HTML file that opens offline."""
    from wscnn.core.provenance import note_version
    from wscnn.reporting.report import write_report

    write_report(results, output, hits=hits, models=models)
    note_version(output.parent, "report", "", output)


@main.command()
@click.argument("results", type=_PATH)
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="Rows to print.")
@click.option("--jobs", is_flag=True, help="Print what each job took instead: time, memory and rate.")
@click.option(
    "--provenance", is_flag=True, help="Print where the tables come from instead: digests, versions, what has changed."
)
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def show(results: Path, top: int, jobs: bool, provenance: bool, as_json: bool) -> None:
    """Print the head of a finished screen's hit table.

    Below it are the paths of the table, the report and the warnings.
    """
    from wscnn.core.provenance import commit, read_provenance
    from wscnn.core.screen_folder import ScreenFolder
    from wscnn.core.tables import read_table
    from wscnn.preflight.jobs import read_jobs

    if jobs and provenance:
        raise click.UsageError("--jobs and --provenance are two tables; print one at a time")
    if provenance:
        found = read_provenance(results)
        if as_json:
            click.echo(json.dumps(found | {"outputs": found["outputs"].to_dict("records")}, indent=1))
            return
        for name, digest in found["run"].items():
            click.echo(f"{name}: sha256 {digest}")
        click.echo(f"\n{_in_columns(found['outputs'])}\n\nthis is wscnn {__version__} {commit()}".rstrip())
        return
    if jobs:
        table = read_jobs(results)
        click.echo(table.to_json(orient="records", indent=1) if as_json else _in_columns(table))
        return
    screen = ScreenFolder(results)
    hits = read_table(screen.table("hits"))
    head = hits.head(top)
    if as_json:
        click.echo(head.to_json(orient="records", indent=1))
        return
    columns = ["rank", "perturbation", "phenotype", "n_wells", "n_plates", "effect", "p", "q", "hit", "caution"]
    # Tables of an earlier version have no cautions.
    click.echo(_in_columns(head[[name for name in columns if name in head]]))
    click.echo(f"\n{int(hits['hit'].sum())} hits among {len(hits)} rows")
    click.echo(f"table:    {screen.table('hits')}\nreport:   {screen.report}")
    if (warnings := screen.table("warnings")).is_file():
        click.echo(f"warnings: {warnings} ({len(read_table(warnings))})")


def _in_columns(table: Any) -> str:
    """Return a table as text."""
    return table.to_string(index=False, float_format="{:.3g}".format)


@main.command()
@click.argument("results", type=_PATH)
@click.option("--well", required=True, metavar="PLATE/WELL", help="Such as plate1/B03.")
@click.option("--output", type=_PATH, help="Write a picture (PNG) here instead of opening napari.")
@click.option("--occlusion", is_flag=True, help="Write a picture that also shows where covering lowers the score.")
@click.option("--models", type=_PATH, help="For --occlusion: the model that scored the screen; by default its own.")
def view(results: Path, well: str, output: Path | None, occlusion: bool, models: Path | None) -> None:
    """Look at a well with its masks, in napari or as a picture.

    napari opens where it is installed and neither --output nor --occlusion is given.
    """
    from wscnn.reporting.view import view_well

    plate, _, name = well.rpartition("/")
    if not plate:
        raise UserError(f"--well: '{well}' names no plate; write it as plate1/B03")
    view_well(results, plate, name, output, occlusion, models)


def _list_targets() -> str:
    """Return the formats of exports and what each of them is, one per line."""
    return "\n".join(f"{name:9}  {target.summary}" for name, target in TARGETS.items())


@main.command(help=f"Export a finished screen to the formats of other tools.\n\n\b\n{_list_targets()}")
@click.argument("results", type=_PATH)
@click.option("--to", "target", type=click.Choice(list(TARGETS)), required=True, help="The format; see above.")
@_path("--output", "The file (xlsx) or folder to write, outside the results folder.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier export at --output.")
def export(results: Path, target: str, output: Path, overwrite: bool) -> None:
    from wscnn.export.export import export as make

    make(results, target, output, overwrite=overwrite)


@main.command()
@click.argument("results", type=_PATH)
@click.option("--perturbation", required=True, metavar="NAME", help="As in the layout; hit or not.")
@_path("--output", "The picture to write (PNG).")
@click.option("--cells", type=click.IntRange(1), default=24, show_default=True, help="Pictures for each phenotype.")
@click.option("--models", type=_PATH, help="Folder of the model that scored the screen; by default the screen's own.")
def gallery(results: Path, perturbation: str, output: Path, cells: int, models: Path | None) -> None:
    """Write pictures of a perturbation's cells by score, with a row of negative controls.

    Where no cell was detected, they show the highest positions below the detector's threshold.
    """
    from wscnn.reporting.sheet import write_sheet

    write_sheet(results, perturbation, cells, output, models)


@main.command()
@click.argument("table", type=click.Choice(["1", "2", "3", "prevalence", "pools"]))
@click.argument("folder", type=_PATH)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of seeds.")
@click.option(
    "--images", type=click.IntRange(12), help="Images per class, in three parts; by default as many as in the paper."
)
@click.option("--steps", type=click.IntRange(1), help="Steps of each training.")
@click.option("--architecture", help="A value of the config's model.architecture.")
@click.option("--pool", "pools", multiple=True, help="A value of model.pool; repeat for several.")
@click.option("--preset", type=click.Choice(["default", "paper"]), default="default", show_default=True)
@click.option(
    "--downsample",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="Downsampling of the nuclei images (prevalence only).",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def reproduce(table: str, folder: Path, pools: tuple[str, ...], **settings: Any) -> None:
    """Reproduce a table of the method's paper, or a harder one; networks and table go to FOLDER.

    1: pools on the paper's simulated data. 2: multinucleate cells. 3: circles found by the saliency. prevalence: real
    nuclei of which 1, 2 and 5 % are mitotic. pools: tests of whether presence is learned.
    """
    from wscnn.paper.reproduce import reproduce as make

    click.echo(
        make(table, folder, pools=pools or None, **settings).to_string(index=False, float_format="{:.4f}".format)
    )


@main.group()
def simulate() -> None:
    """Simulate images with known truth."""


@simulate.command("screen")
@click.argument("folder", type=_PATH)
@click.option("--plates", default=2, show_default=True)
@click.option("--wells", default=96, show_default=True, help="Wells per plate: 12, 24, 48, 96, 384 or 1536.")
@click.option("--fields", default=4, show_default=True, help="Fields per well.")
@click.option("--size", type=int, help="Side of a field, pixels; 540, for micronuclei 270.")
@click.option(
    "--cells",
    type=click.Choice(["nuclei", "multinucleate", "micronuclei"]),
    default="nuclei",
    show_default=True,
    help="Real nuclei, mitotic ones rare; drawn cells, multinucleate ones rare; real nuclei, few with micronuclei.",
)
@click.option("--phenotype", "phenotypes", multiple=True, help="What is rare; repeat for several.")
@click.option("--prevalence", type=float, help="Fraction of a positive control's cells; 0.06, for micronuclei 0.05.")
@click.option("--background", type=float, help="Fraction of all other cells; 0.003, for micronuclei 0.005.")
@click.option("--negatives", type=int, help="Negative control wells per plate; by default a sixth.")
@click.option("--positives", type=int, help="Positive control wells per plate; by default a sixth.")
@click.option("--strong", default=3, show_default=True, help="Perturbations that act like a positive control.")
@click.option("--weak", default=2, show_default=True, help="Perturbations that act a quarter to half as much.")
@click.option("--replicates", default=4, show_default=True, help="Wells per perturbation and plate.")
@click.option(
    "--label-noise", default=0.0, show_default=True, help="Fraction of the negative fields with one extra rare cell."
)
@click.option("--nuisance", default=1.0, show_default=True, help="Strength of plate, edge, row and well effects.")
@click.option("--faults", default=0, show_default=True, help="Fields with a fault, of six kinds in turn.")
@click.option(
    "--controls-from",
    multiple=True,
    help="Sources of the nuclei in control wells: first or second (half of the source plates); for micronuclei a date. "
    "Repeat for several; by default half of them, by the seed.",
)
@click.option("--samples-from", multiple=True, help="The same for sample wells; by default the other sources.")
@click.option("--seed", default=0, show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Wells simulated in parallel; by default one per core.")
def simulate_screen(folder: Path, **settings: Any) -> None:
    """Write a screen to FOLDER: images, plates.tsv, layout.tsv, config.yaml, and the truth."""
    from wscnn.simulate.screen import simulate_screen as make

    make(folder, **{name: value for name, value in settings.items() if value is not None})


@simulate.command("circles")
@click.argument("folder", type=_PATH)
@click.option("--n-per-class", default=2000, show_default=True, help="Images of each class.")
@click.option(
    "--fraction", default=0.1, show_default=True, help="Fraction of a positive image's ellipses that are circles."
)
@click.option("--circles", type=click.IntRange(1), help="This many circles in each positive image instead.")
@click.option(
    "--axis-ratio",
    nargs=2,
    type=float,
    default=(0.5, 0.7),
    show_default=True,
    help="Axis ratios of the ellipses, from and to.",
)
@click.option("--seed", default=0, show_default=True)
def simulate_circles(folder: Path, **settings: Any) -> None:
    """Write images of ellipses, and of ellipses with rare circles, to FOLDER, with the circles' boxes."""
    from wscnn.simulate.circles import simulate_circles as make

    make(folder, **settings)
