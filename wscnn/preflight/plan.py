"""What a screen will cost: jobs, files, bytes and hours, from its size and measured rates, before anything runs.

Each stage's cost is that of starting its jobs and a rate times its work. Work is measured in the unit that determines
the stage's time: images to index, megabytes of raw pixels to stage, multiplications of the networks to train and score,
wells to call and report.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from wscnn.core.errors import UserError
from wscnn.core.screen_folder import N_FOLDS, ScreenFolder
from wscnn.core.wells import PLATE_FORMATS
from wscnn.encoder.tiles import BATCH, TILE
from wscnn.network.architectures import ARCHITECTURES
from wscnn.preflight.jobs import UNITS, manifest, read_jobs
from wscnn.staging.scale import FALLBACK
from wscnn.training.recipe import recipe_of

if TYPE_CHECKING:
    from wscnn.preflight.check import Screen

#: Sections of the config that a plan depends on.
PLANNED = ("mosaic", "model", "encoder", "discovery", "train")
#: Networks of a screen.


class Rate(NamedTuple):
    """Cost of a stage: core-seconds to start a job, and seconds per unit of work.

    Attributes
    ----------
    start
        Core-seconds of a job without work.
    core
        Core-seconds per unit of work.
    clock
        Wall-clock seconds per unit of work, with the cores (and GPU) of the measurement.
    """

    start: float
    core: float
    clock: float


#: Measured on two cores of an AMD EPYC without AVX-512 and without a GPU. `stage`, `train` and `score`: a demo screen
#: alone on the machine (`make demo SEED=1`: two plates of 96 wells x 4 fields of 540 x 540, one channel, illumination
#: corrected, nuclei counted). `index`: 3,456 files whose headers are read; `hits`: 384,000 wells (bench_hits.py);
#: `report`: 38,400 wells. Start-up costs are the intercepts of a line through jobs of two sizes: for `stage` and
#: `train`, this screen and two plates of 24 wells x 2 fields of 200 x 200; for `score`, plates of 24 and 384 wells
#: (bench_size.py). `novelty`: the same screen, by 10^6 pixels of fields whose cells are described; `score` has the same
#: work for all fields if novelty is scored.
RATES = {
    "index": Rate(0.5, 6e-4, 6e-4),
    "stage": Rate(2.4, 0.054, 0.041),
    "encode": Rate(6.0, 0.25, 0.17),
    "novelty": Rate(5.0, 0.85, 0.85),
    "train": Rate(4.5, 0.25, 0.17),
    "score": Rate(5.5, 0.075, 0.045),
    "hits": Rate(1.0, 2e-5, 2e-5),
    "report": Rate(4.0, 8e-5, 8e-5),
}
#: Stages whose jobs request a GPU.
GPU_STAGES = ("encode", "novelty", "train", "score")

#: Measured on the same screens: compression of a mosaic's pixels in the store, bytes of masks and saliency per pixel of
#: the mosaic and phenotype, and bytes of the tables per row, by kind of row.
PACKED = 2.0
LABEL_BYTES = 0.023
TABLE_BYTES = {"image": 20, "field": 35, "field and channel": 65, "well": 350, "model": 70_000, "report": 1_100_000}


@dataclass(frozen=True)
class Size:
    """Size of a screen, as far as it determines the cost; counts are over all plates.

    Attributes
    ----------
    plates, rows, wells, fields, images
        How many: rows of wells, images of all channels and planes.
    channels
        That are staged.
    shape
        Height and width of a raw image.
    pixel_bytes, image_bytes
        Of a pixel, and of an image's file.
    controls
        Control wells.
    phenotypes
        Classes but the negative one; 0 where nothing is trained.
    """

    plates: int
    rows: int
    wells: int
    fields: int
    images: int
    channels: int
    shape: tuple[int, int]
    pixel_bytes: int
    image_bytes: float
    controls: int
    phenotypes: int


def size_of(screen: "Screen") -> Size:
    """Return the size of a checked screen; one image is opened, for shape and type."""
    from wscnn.acquisitions import open_acquisition

    first = screen.images[screen.images["images"] > 0].iloc[0]
    folder = screen.plates.set_index("plate").loc[first["plate"], "images"]
    reader = open_acquisition(Path(folder), screen.config["acquisition"])
    image = reader.read(Path(first["path"]), int(first["page"]))
    controls = screen.layout[screen.layout["role"].isin(["negative", "positive"])]
    positive = controls.loc[controls["role"] == "positive", "phenotype"]
    path = Path(first["path"])
    return Size(
        plates=len(screen.images),
        **{name: int(screen.images[name].sum()) for name in ("rows", "wells", "fields", "images")},
        channels=len(screen.config["acquisition"]["channels"]),
        shape=(image.shape[0], image.shape[1]),
        pixel_bytes=image.dtype.itemsize,
        # An OME-Zarr's image is a folder: then the pixels' bytes.
        image_bytes=path.stat().st_size if path.is_file() else image.nbytes,
        controls=len(controls),
        phenotypes=max(int(screen.config["discovery"]["method"] == "none"), positive.nunique()),
    )


def size_by_numbers(
    *, plates: int, wells: int, fields: int, channels: int, planes: int, size: int, controls: int
) -> Size:
    """Return the size of a screen of equal plates, 16 bit and uncompressed, with one phenotype.

    Parameters
    ----------
    plates
        How many.
    wells, controls
        Of a plate.
    fields
        Of a well.
    channels, planes
        Of a field.
    size
        Side of an image, pixels.
    """
    held = [shape for n, shape in PLATE_FORMATS.items() if n >= wells]
    if not held:
        raise UserError(f"--wells: {wells} are more than a plate has; the largest has {max(PLATE_FORMATS)}")
    n = plates * wells * fields
    return Size(
        plates=plates,
        rows=plates * held[0][0],
        wells=plates * wells,
        fields=n,
        images=n * channels * planes,
        channels=channels,
        shape=(size, size),
        pixel_bytes=2,
        image_bytes=2 * size * size,
        controls=plates * controls,
        phenotypes=1,
    )


def plan(size: Size, config: Mapping[str, Any], rates: Mapping[str, Rate] = RATES) -> pd.DataFrame:
    """Return what each stage will cost, and a last row ``total``.

    Columns: ``stage, jobs`` (those that go to the cluster), ``files`` (written, logs among them), ``read`` and
    ``written`` (bytes), ``core_hours``, and ``gpu_hours``: how long the jobs that request a GPU hold one.

    Parameters
    ----------
    size
        The screen's.
    config
        The sections `PLANNED`, complete with defaults.
    rates
        What each stage costs.
    """
    trains = config["model"]["checkpoint"] is None and size.phenotypes > 0
    discovers = _discovers(config)
    encodes = discovers or (trains and ARCHITECTURES[config["model"]["architecture"]].encoded)
    jobs = {"index": size.plates, "stage": size.plates, "encode": int(encodes), "novelty": int(discovers)}
    jobs["train"] = N_FOLDS * trains
    jobs["score"] = size.plates
    jobs |= {"hits": 1, "report": 1}
    n_phenotypes = size.phenotypes + discovers
    labels = 2 * n_phenotypes
    files = {
        "index": size.plates,
        # Group of the plate and of each row; group of the well, group of its image, array, one shard per channel.
        "stage": 4 * size.plates + size.rows + size.wells * (3 + size.channels),
        "encode": 2 * jobs["encode"],
        "novelty": jobs["novelty"],
        "train": 3 * jobs["train"],
        # Group of the labels; group, array and shard of each.
        "score": (3 + discovers) * size.plates + size.wells * (1 + 3 * labels),
        "hits": 5,
        "report": 1,
    }
    tables = {
        "index": size.images * TABLE_BYTES["image"],
        "stage": size.fields * size.channels * TABLE_BYTES["field and channel"],
        "encode": jobs["encode"] * TABLE_BYTES["model"],
        # References of three parts, 4,000 cells each, of 128 numbers.
        "novelty": jobs["novelty"] * N_FOLDS * 4000 * 128 * 4,
        "train": jobs["train"] * TABLE_BYTES["model"],
        "score": size.fields * TABLE_BYTES["field"] + size.wells * TABLE_BYTES["well"],
        "hits": size.wells * TABLE_BYTES["well"],
        "report": TABLE_BYTES["report"],
    }
    height, width = (side // _factor(config) for side in size.shape)
    mosaic = size.fields * height * width
    staged = mosaic * size.channels * size.pixel_bytes / PACKED
    control_wells = min(size.controls, N_FOLDS * config["train"]["max_fields"])
    read = {
        "stage": size.images * size.image_bytes,
        "encode": jobs["encode"] * staged * min(1, config["encoder"]["max_fields"] / max(size.fields, 1)),
        "novelty": jobs["novelty"] * staged * size.controls / max(size.wells, 1),
        "train": jobs["train"] * (staged * control_wells / size.wells + tables["stage"]),
        "score": staged,
        "hits": tables["score"],
        "report": tables["hits"],
    }
    written = tables | {"stage": staged + tables["stage"]}
    written["score"] += mosaic * n_phenotypes * LABEL_BYTES
    work = work_of(size, config)
    rows = []
    for stage in UNITS:
        rate = rates[stage]
        core, clock = (jobs[stage] * rate.start + work[stage] * each for each in (rate.core, rate.clock))
        if stage == "score" and discovers:
            core, clock = core + mosaic / 1e6 * rates["novelty"].core, clock + mosaic / 1e6 * rates["novelty"].clock
        rows.append(
            {
                "stage": stage,
                "jobs": jobs[stage],
                # One log, one benchmark and one note of the version each.
                "files": files[stage] + 3 * jobs[stage],
                "read": round(read.get(stage, 0)),
                "written": round(written.get(stage, 0)),
                "core_hours": core * bool(jobs[stage]) / 3600,
                "gpu_hours": clock / 3600 if stage in GPU_STAGES and jobs[stage] else 0.0,
            }
        )
    table = pd.DataFrame(rows)
    return pd.concat([table, table.drop(columns="stage").sum().to_frame().T.assign(stage="total")], ignore_index=True)


def describe(table: pd.DataFrame, size: Size, rates: Mapping[str, Rate]) -> str:
    """Return a plan in words, one line per stage.

    Parameters
    ----------
    table
        The plan.
    size
        Of the screen.
    rates
        Rates that were measured on the user's own machines.
    """
    text = table.assign(
        **{name: [f"{n:,.0f}" for n in table[name]] for name in ("jobs", "files")},
        **{name: [_bytes(n) for n in table[name]] for name in ("read", "written")},
        **{name: [f"{hours:,.2f}" for hours in table[name]] for name in ("core_hours", "gpu_hours")},
    )
    lines = [
        f"{size.plates:,} plates, {size.wells:,} wells, {size.fields:,} fields, {size.images:,} images of "
        f"{size.shape[0]} x {size.shape[1]} pixels in {size.channels} channels",
        text.to_string(index=False),
    ]
    if built_in := [stage for stage in UNITS if stage not in rates]:
        lines.append(
            f"Rates of {', '.join(built_in)}: measured on two cores without a GPU. "
            "--measured RESULTS takes those of a screen of yours, say of one plate."
        )
    if not set(GPU_STAGES) <= set(rates):
        lines.append(
            "GPU-hours: how long jobs would hold a GPU if it were no faster than those two cores; an upper bound."
        )
    return "\n".join(lines)


def _bytes(n: float) -> str:
    """Return bytes in a unit that leaves a number of at most three digits."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 999.5:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} TB" if n < 999.5 else f"{n:,.0f} TB"


def _discovers(config: Mapping[str, Any]) -> bool:
    """Return whether cells that no positive control shows are searched for."""
    return bool(config["discovery"]["method"] != "none")


def work_of(size: Size, config: Mapping[str, Any]) -> dict[str, float]:
    """Return each stage's work over the whole screen.

    Images to index; MB of raw pixels to stage; 10^9 multiplications of one forward pass over what is drawn for
    training and over what is scored; 10^6 pixels of fields of negative controls; wells and phenotypes to call, and to
    report.
    """
    encoded = ARCHITECTURES[config["model"]["architecture"]].encoded
    recipe = recipe_of(config["train"], encoded)
    chosen = config["model"]["channels"]
    channels = size.channels if chosen is None else len(chosen)
    each = multiplications(config["model"]["architecture"], channels, 1 + size.phenotypes) / 1e9
    height, width = (side // _factor(config) for side in size.shape)
    trains = config["model"]["checkpoint"] is None and size.phenotypes > 0
    discovers = _discovers(config)
    share = min(1, size.controls / max(size.wells, 1))
    crop = [min(recipe["crop"], recipe["tiles"] * side) for side in (height, width)]
    drawn = recipe["steps"] * recipe["batch"] * crop[0] * crop[1]
    if encoded:
        # Each control field is processed twice, before its detectors are fitted and after.
        drawn = 2 * size.fields * share * height * width
    return {
        "index": size.images,
        "stage": size.images * size.shape[0] * size.shape[1] * size.pixel_bytes / 1e6,
        # Two views of each tile.
        "encode": (
            config["encoder"]["steps"] * 2 * BATCH * TILE**2 * multiplications("encoder", channels, 2) / 1e9
            if discovers or (encoded and trains)
            else 0.0
        ),
        "novelty": size.fields * share * height * width / 1e6 * discovers,
        "train": N_FOLDS * drawn * each if trains else 0.0,
        "score": N_FOLDS * size.fields * height * width * each * (size.phenotypes > 0),
        "hits": size.wells * (size.phenotypes + discovers),
        "report": size.wells * (size.phenotypes + discovers),
    }


def _factor(config: Mapping[str, Any]) -> int:
    """Return ``mosaic.downsample``; for ``auto``, without images to measure, its default."""
    factor = config["mosaic"]["downsample"]
    return FALLBACK if factor == "auto" else int(factor)


def multiplications(architecture: str, channels: int, classes: int) -> float:
    """Return how many multiplications in convolutions one pixel of an image needs, ignoring borders."""
    layers, kernel, *_ = ARCHITECTURES[architecture]
    total, before, share = 0.0, channels, 1.0
    for layer in layers:
        after = share / (4 if layer.halve else 1)
        total += (after if layer.halve == "stride" else share) * layer.kernel**2 * before * layer.filters
        before, share = layer.filters, after
    return total + share * kernel**2 * before * classes


def measured(results: Path) -> dict[str, Rate]:
    """Return the rates that a finished screen had, of the stages whose jobs did more than start.

    Raises
    ------
    UserError
        When the folder holds no benchmarks, or what they are of is missing.
    """
    jobs = read_jobs(results).dropna(subset=["core_seconds", "seconds"])
    work = _work_done(results)
    rates = {}
    for stage, rows in jobs.groupby("stage"):
        start = RATES[str(stage)].start
        times = rows[["core_seconds", "seconds"]]
        if work.get(str(stage), 0) > 0 and times.min().min() >= 2 * start:
            core, clock = ((times - start).sum() / work[str(stage)]).tolist()
            rates[str(stage)] = Rate(start, core, clock)
    return rates


def _work_done(results: Path) -> dict[str, float]:
    """Return the work of a finished screen's stages, as `work_of` counts it."""
    # torch and zarr take seconds to import, and a plan by numbers needs neither.
    from wscnn.network.weights import load_folds
    from wscnn.plates.store import Plate

    screen = ScreenFolder(results)
    plates = [manifest(path) for path in screen.manifests()]
    if not plates:
        raise UserError(f"{results}: holds no staged plate; give the results folder of a finished screen")
    wells = sum(len(plate["wells"]) for plate in plates)
    staged = {
        "index": sum(plate["images"] for plate in plates),
        "stage": sum(plate["bytes"] for plate in plates) / 1e6,
        "hits": wells,
        "report": wells,
    }
    if not screen.model.folds():
        return staged
    _, card = load_folds(screen.model.path)[0]
    field = Plate(screen.plate(plates[0]["plate"])).fields(plates[0]["wells"][0]).iloc[0]
    size = Size(
        plates=len(plates),
        rows=0,
        wells=wells,
        fields=sum(plate["fields"] for plate in plates),
        images=staged["index"],
        channels=len(plates[0]["channels"]),
        shape=(int(field["height"]), int(field["width"])),
        pixel_bytes=2,
        image_bytes=0,
        controls=0,
        phenotypes=len(card.phenotypes),
    )
    settings = {**card.settings, "mosaic": {"downsample": 1}, "discovery": {"method": "none"}}
    return work_of(size, settings) | staged | {"hits": wells * size.phenotypes}
