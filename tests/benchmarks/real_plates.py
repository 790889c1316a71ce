"""Hit calls on real plates: how often known nulls are called, and what is found.

``python tests/benchmarks/real_plates.py lincs FILE`` turns DMSO positions of LINCS plates into samples (FILE:
lincs_cell_counts.tsv.gz, score: minus the nuclei). Of each plate map, four disjoint sixes of the 24 DMSO positions are
nulls once, at which the other 18 are negative controls. Printed are the share of nulls with a p of at most 0.05 (p, and
the larger of p and p_position, which q uses), the runs with a false call, and the share called of the positions whose
median count is below half of their plates' DMSO. ``--maps even`` or ``odd`` takes every other map: choose on
one half, report on the other.

``python tests/benchmarks/real_plates.py jump FOLDER`` leaves each of 64 DMSO positions of seven JUMP-Target-1 plates
out of everything (normalisation, projection, controls) and prints how often it gets a p of at most 0.05, beside the
share by the wells of each plate as the null; and how many of 260 compounds are called. A well's score is how far it
lies, in whitened principal components of DMSO, in the direction of the same position on the other plates.

``python tests/benchmarks/real_plates.py doses FILE`` compares the EC50s of LINCS compounds that leave less than half of
the cells at their highest dose with a fit by scipy (soft L1 loss), and simulates curves to see how often the interval
holds the truth.

``python tests/benchmarks/real_plates.py kcviab ARCHIVE`` ranks the genes of a viability screen in Drosophila cells
(Boutros et al. 2004; 57 x 2 plates) and prints how many of the published top 100 are in the top 200.
"""

import argparse
import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from wscnn.core.config import section
from wscnn.statistics.arrays import Array, Numbers
from wscnn.statistics.conformal import rank_sum_p
from wscnn.statistics.doses import fit_curve
from wscnn.statistics.hits import analyse
from wscnn.statistics.normalize import MAD_TO_SD

SIXES = 4
# Of 60, 100, 160 and 250 components, 160 find most.
JUMP_FOLDS, JUMP_COMPONENTS = 8, 160


def lincs(path: Path, maps: str, settings: str) -> None:
    """Print how often DMSO positions are called."""
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values={"nuclei": [""]})
    table = table.assign(score=-table["nuclei"].astype(float))
    nulls, taken, wrong, acting, runs = [], [], 0, [], 0
    names = sorted(table["plate_map"].unique())
    names = {"all": names, "even": names[::2], "odd": names[1::2]}[maps]
    for name in names:
        wells = table[table["plate_map"] == name].copy()
        dmso = np.array(sorted(wells.loc[wells["negative"].astype(str) == "True", "well"].unique()))
        centre = wells[wells["well"].isin(dmso)].groupby("plate")["score"].median()
        ratio = (wells["score"] / wells["plate"].map(centre)).groupby(wells["well"]).median()
        dying = set(ratio.index[ratio < 0.5]) - set(dmso)
        for six in range(SIXES):
            held = set(dmso[six::SIXES])
            role = np.where(wells["well"].isin(set(dmso) - held), "negative", "sample")
            perturbation = np.where(role == "negative", "DMSO", wells["well"])
            given = wells[["plate", "well", "score"]].assign(role=role, perturbation=perturbation)
            hits = analyse(given, None, source="LINCS", hits=section("hits", settings)).hits.set_index("perturbation")
            own = hits.loc[sorted(held)]
            nulls.append(own["p"].to_numpy())
            taken.append(own[["p", "p_position"]].max(axis=1).to_numpy())
            wrong += bool(own["hit"].any())
            acting.append(hits.loc[sorted(dying), "hit"].to_numpy())
            runs += 1
    p, both = np.concatenate(nulls), np.concatenate(taken)
    print(f"{len(p)} nulls: p <= 0.05 {np.mean(p <= 0.05):.1%}; as q uses it {np.mean(both <= 0.05):.1%}")
    print(f"runs with a false call: {wrong} of {runs}; cell loss called: {np.concatenate(acting).mean():.1%}")


def jump(folder: Path, settings: str) -> None:
    """Print how often DMSO positions, and how many compounds, look active over plates of one map."""
    files = sorted(folder.glob("BR*.csv.gz"))
    plates = [pd.read_csv(file, low_memory=False).sort_values("Metadata_Well", ignore_index=True) for file in files]
    wells = plates[0]["Metadata_Well"].to_numpy()
    features = np.stack([plate.filter(regex="^(?!Metadata)").to_numpy(dtype=float) for plate in plates])
    dmso = np.flatnonzero(plates[0]["Metadata_broad_sample"].isna())
    compounds = np.flatnonzero(plates[0]["Metadata_pert_type"] == "trt")
    rules = section("hits", settings)

    def table(controls: Numbers, samples: Numbers) -> pd.DataFrame:
        """Score every position by models that no value of it, or of an eighth of the controls, went into."""
        fold = np.full(len(wells), -1)
        fold[controls], fold[samples] = np.arange(len(controls)) % JUMP_FOLDS, np.arange(len(samples)) % JUMP_FOLDS
        scores = np.full(features.shape[:2], np.nan)
        for k in range(JUMP_FOLDS):
            whitened = whiten(features, controls[fold[controls] != k])
            scores[:, fold == k] = agreement(whitened)[:, fold == k]
        own = np.append(controls, samples)
        return pd.DataFrame(
            {
                "plate": np.repeat([file.name[:10] for file in files], len(own)),
                "well": np.tile(wells[own], len(files)),
                "perturbation": np.tile(np.append(["DMSO"] * len(controls), wells[samples]), len(files)),
                "role": np.tile(np.repeat(["negative", "sample"], (len(controls), len(samples))), len(files)),
                "score": scores[:, own].ravel(),
            }
        )

    hits = analyse(table(dmso, compounds), None, source="JUMP", hits=rules).hits
    called = int(hits["hit"].sum())
    taken, naive = [], []
    for position in dmso:
        others = dmso[dmso != position]
        own = analyse(table(others, np.append(position, compounds)), None, source="JUMP", hits=rules).hits
        own = own[own["perturbation"] == wells[position]]
        taken.append(float(own[["p", "p_position"]].max(axis=1).iloc[0]))
        whitened = whiten(features, others)
        direction = rest_of(whitened[:, position])
        values = np.einsum("pwk,pk->pw", whitened, direction)
        above = (values[:, others] >= values[:, [position]]).sum()
        naive.append(rank_sum_p(np.array([above]), [((len(others), 1),) * len(files)])[0])
    print(f"{called} of {len(compounds)} compounds called")
    print(
        f"{len(dmso)} DMSO positions: p <= 0.05 {np.mean(np.array(taken) <= 0.05):.1%} as q uses it, "
        f"{np.mean(np.array(naive) <= 0.05):.1%} with the wells of each plate as the null"
    )


def whiten(features: Array, controls: Numbers) -> Array:
    """Return features (plates, wells, n) as principal components of the controls, each of variance 1 among these."""
    own = features[:, controls]
    centre = np.median(own, axis=1, keepdims=True)
    scale = MAD_TO_SD * np.median(np.abs(own - centre), axis=1, keepdims=True)
    z = np.clip((features - centre) / np.where(scale > 0, scale, np.inf), -10, 10)
    flat = z[:, controls].reshape(-1, z.shape[2])
    mean = flat.mean(axis=0)
    _, size, axes = np.linalg.svd(flat - mean, full_matrices=False)
    return (z - mean) @ axes[:JUMP_COMPONENTS].T / (size[:JUMP_COMPONENTS] / np.sqrt(len(flat)))


def rest_of(whitened: Array) -> Array:
    """Return the direction (length 1) of the mean over all other plates; plates along the first axis."""
    mean = (whitened.sum(axis=0, keepdims=True) - whitened) / (len(whitened) - 1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def agreement(whitened: Array) -> Array:
    """Return how far each well (plates, wells, n) lies in the direction of its position on all other plates."""
    return (whitened * rest_of(whitened)).sum(axis=-1)


def kcviab(archive: Path, settings: str) -> None:
    """Print how many of the published top 100 are among the top 200, and how many plain robust z finds."""
    with tarfile.open(archive) as tar:
        files = {
            Path(member.name).name: tar.extractfile(member).read().decode("latin-1")
            for member in tar
            if member.name.startswith("./inst/KcViab/") and member.isfile()
        }
    read = {
        name: pd.read_csv(io.StringIO(text), sep="\t", header=None if name.startswith("FT") else "infer")
        for name, text in files.items()
        if name in ("Platelist.txt", "Screenlog.txt", "Analysis2003.txt") or name.startswith("FT")
    }
    wells = pd.concat(
        read[row.Filename].set_axis(["file", "well", "value"], axis=1).assign(set=row.Plate, replicate=row.Replicate)
        for row in read["Platelist.txt"].itertuples()
    )
    log = read["Screenlog.txt"].rename(columns={"Plate": "set", "Sample": "replicate", "Well": "well"})
    wells = wells.merge(
        log[["set", "replicate", "well", "Flag"]], how="left", on=["set", "replicate", "well"], indicator="flagged"
    )
    # The plate configuration: A01 and A02 hold something else, B01 the negative control, B02 the positive one.
    role = (
        wells["well"].map({"A01": "exclude", "A02": "exclude", "B01": "negative", "B02": "positive"}).fillna("sample")
    )
    name = wells["set"].astype(str) + "-" + wells["well"]
    table = pd.DataFrame(
        {
            "plate": "P" + wells["set"].astype(str).str.zfill(2) + "-" + wells["replicate"].astype(str),
            "well": wells["well"],
            "role": role.mask(wells["flagged"] == "both", "exclude"),
            "perturbation": name,
            # Fewer viable cells give less light.
            "score": -np.log2(wells["value"].astype(float)),
        }
    )
    table["control_phenotype"] = ""
    published = read["Analysis2003.txt"]
    published = (published["Plate"].astype(str) + "-" + published["Well"])[
        published["Score"].rank(ascending=False) <= 100
    ]
    hits = analyse(table, None, source="KcViab", hits=section("hits", settings)).hits
    ours = hits[hits["role"] == "sample"]
    samples = table[table["role"] == "sample"]
    z = samples.groupby("plate")["score"].transform(
        lambda x: (x - x.median()) / (MAD_TO_SD * (x - x.median()).abs().median())
    )
    plain = z.groupby(samples["perturbation"]).mean().sort_values(ascending=False)
    for title, order in (
        ("ours, by rank", ours["perturbation"]),
        ("ours, by effect", ours.sort_values("effect", ascending=False)["perturbation"]),
        ("plain robust z", plain.index),
    ):
        print(f"{title}: {len(set(order[:200]) & set(published))} of the published top {len(published)} in the top 200")


def doses(path: Path, settings: str) -> None:
    """Print how EC50s of LINCS compounds compare with robust fits by scipy, and how often intervals cover the truth."""
    table = pd.read_csv(path, sep="\t", keep_default_na=False, na_values={"nuclei": [""]})
    table = table.assign(score=-table["nuclei"].astype(float))
    ratios, refused, expected = [], [], 0
    for _, wells in table.groupby("plate_map"):
        negative = wells["negative"].astype(str) == "True"
        relative = wells["nuclei"] / wells["plate"].map(wells[negative].groupby("plate")["nuclei"].median())
        dose = pd.to_numeric(wells["dose_mmol_per_l"], errors="coerce").round(4)
        given = wells[["plate", "well", "score", "compound"]].assign(
            role=np.where(negative, "negative", "sample"),
            perturbation=np.where(negative, "DMSO", wells["compound"].astype(str) + " " + dose.astype(str)),
            dose=dose,
        )
        found = analyse(given, None, source="LINCS", hits=section("hits", settings)).doses.set_index("compound")
        for compound, own in wells[~negative].assign(relative=relative, dose=dose).groupby("compound"):
            own = own.dropna(subset=["dose", "relative"])
            if own["dose"].nunique() < 5 or own.loc[own["dose"] == own["dose"].max(), "relative"].median() >= 0.5:
                continue
            expected += 1
            curve = found.loc[compound]
            if curve["status"] != "ok":
                refused.append(curve["status"])
            elif np.isfinite(reference := scipy_ec50(own["dose"].to_numpy(), own["relative"].to_numpy())):
                ratios.append(abs(np.log(curve["ec50"] / reference)))
    close = np.mean(np.array(ratios) <= np.log(1.5))
    print(
        f"{expected} compounds leave less than half of the cells at their highest dose; refused: "
        f"{ {why: refused.count(why) for why in sorted(set(refused))} }"
    )
    print(f"EC50 within a factor of 1.5 of scipy's robust fit: {close:.1%} of {len(ratios)}")
    for seed, doses_of in ((0, 6), (1, 8)):
        rng = np.random.default_rng([9, seed])
        covered, statuses = [], []
        for _ in range(400):
            x = np.repeat(10.0 ** np.linspace(-2, 1.2, doses_of), rng.integers(2, 6))
            centre, hill, height = rng.uniform(-1, 0.6), rng.uniform(0.7, 3), rng.uniform(4, 15)
            y = height / (1 + (10**centre / x) ** hill) + rng.standard_t(5, size=len(x))
            curve = fit_curve(x, y)
            statuses.append(curve.status)
            if curve.status == "ok":
                covered.append(curve.ec50_low <= 10**centre <= curve.ec50_high)
        nothing = [fit_curve(x, rng.standard_t(5, size=len(x))).status for _ in range(400)]
        print(
            f"{doses_of} doses: intervals cover the truth in {np.mean(covered):.1%} of {len(covered)} curves "
            f"({statuses.count('open')} open, {statuses.count('flat')} flat of 400); of 400 series without an effect "
            f"{nothing.count('ok')} get a curve"
        )


def scipy_ec50(dose: Array, response: Array) -> float:
    """Return the EC50 of the best of several fits of a falling four-parameter curve with a robust loss."""

    def residuals(parameters: Array) -> Array:
        top, bottom, centre, slope = parameters
        return bottom + (top - bottom) / (1 + np.exp(slope * (np.log(dose) - centre))) - response

    starts = [(1, 0.1, np.log(d), s) for d in np.unique(dose) for s in (0.7, 1.5, 4)]
    bounds = ([0, -0.5, np.log(dose.min()) - 3, 0.1], [2, 1.5, np.log(dose.max()) + 3, 20])
    fits = [least_squares(residuals, start, bounds=bounds, loss="soft_l1", f_scale=0.1) for start in starts]
    return float(np.exp(min(fits, key=lambda fit: fit.cost).x[2]))


def main() -> None:
    """Print one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="way", required=True)
    plates = ways.add_parser("lincs")
    plates.add_argument("file", type=Path)
    plates.add_argument("--maps", choices=["all", "even", "odd"], default="all")
    series = ways.add_parser("doses")
    series.add_argument("file", type=Path)
    profiles, screen = ways.add_parser("jump"), ways.add_parser("kcviab")
    profiles.add_argument("file", type=Path)
    screen.add_argument("file", type=Path)
    for way in (plates, profiles, screen, series):
        way.add_argument("--settings", default="{}", help="The config's section hits, as JSON.")
    arguments = parser.parse_args()
    if arguments.way == "lincs":
        lincs(arguments.file, arguments.maps, arguments.settings)
    elif arguments.way == "doses":
        doses(arguments.file, arguments.settings)
    elif arguments.way == "jump":
        jump(arguments.file, arguments.settings)
    else:
        kcviab(arguments.file, arguments.settings)


if __name__ == "__main__":
    main()
