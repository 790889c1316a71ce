"""Strings, comments and docstrings of the package and the workflow are plain technical English, not a dialect."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

_THINGS = (
    "batch|bin|byte|cell|channel|class|control|core|evaluation|field|figure|file|fold|GPU|group|image|job|line|map|"
    "object|page|perturbation|phenotype|pixel|plane|plate|point|rank|replicate|row|sample|screen|second|set|stage|step|"
    "table|task|unit|value|well|worker"
)

#: Expressions that are not written here, each with what to write instead.
DIALECT = {
    rf"(?<!many )(?<![Hh]ow )\b(?:{_THINGS}|nucleus)(?:e?s)? an? (?:{_THINGS}|nucleus)\b": "'one row per well'",
    r"\b(?:tell|tells|told|telling)\b": "'says', 'shows', 'reports', 'distinguishes'",
    r"\bmend(?:s|ed|ing)?\b": "'fix', 'correct'",
    r"\bby the clock\b": "'wall-clock time'",
    r"\bknobs?\b": "'setting', 'option'",
    r"\bplaces\b|\b(?:a|an|each|every|one|same|the|this|which) place\b(?! of)": "'position'",
    r"\barea under the curve\b": "'AUC'",
    r"\bselect part\b|\bto select (?:by|on)\b|\bselection (?:part|wells)\b": "'validation'",
    r"\bby heart\b": "'memorise', 'overfit'",
    r"\bmade[- ]up\b": "'simulated'",
    r"\bas a rule\b": "'usually'",
    r"\banew\b": "'again'",
    r"\bshall\b": "'must', 'is to'",
    r"\bso many (?:wells|images|rows|pixels|plates|places|positions|processes|bytes|times)\b": "'this many'",
    r"\bwithout a word\b": "'silently'",
    r"\bfor want of\b": "'for lack of'",
    r"\b(?:see|seen) coarsely\b": "'a coarse copy'",
    r"\bis asked of\b|\bis asked for\b|\bare asked for\b": "'is required', 'is requested'",
    r"\bby its own words\b": "'according to its metadata'",
    r"(?<![Tt]here )\b(?:is|are|was) no (?:finite|grid|mosaic|numbers?|segmentation|text|XML)\b": "'is not a'",
}

_PREFIX = re.compile(r"^[fFrRbBuU]+(?=[\"'])")


def texts(path: Path) -> list[str]:
    """Return what a person reads of a file: its strings and comments, or all of it where it is not Python."""
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
        # Consecutive comments and strings are one text: sentences continue over lines.
        return ["\n".join(_PREFIX.sub("", token.string).strip("#\"': ") for token in tokens if token.type in kinds)]
    return [re.sub(r"^\s*#+ ?", "", path.read_text(), flags=re.MULTILINE)]


def found(text: str) -> list[str]:
    """Return the expressions of the dialect in a text, each with what to write instead."""
    text = " ".join(text.split())
    return [
        f"'{text[max(match.start() - 40, 0) : match.end() + 30]}': write {instead}"
        for pattern, instead in DIALECT.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("folder", ["wscnn", "workflow"])
def test_texts_are_plain_english(folder: str) -> None:
    kinds = {".py", ".smk", ".yaml", ".rst", ".j2", ".js", ""}
    files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in kinds]
    assert files
    problems = [
        f"{path.relative_to(ROOT)}: {problem}" for path in files for part in texts(path) for problem in found(part)
    ]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "writes a row a well",
        "takes 80 ms a field, 9 fields a well",
        "the header tells its size",
        "mend the permissions first",
        "seconds by the clock",
        "the same seed and knobs",
        "the mean of the eight highest places",
        "above which a place belongs to an object",
        "the area under the curve over fields",
        "one to train on, one to select on",
        "nan is no finite number",
    ],
)
def test_the_dialect_is_recognised(text: str) -> None:
    assert found(text)


@pytest.mark.parametrize(
    "text",
    [
        "one row per well, as it stays in place",
        "replaces the files",
        "the table as a whole",
        "recommended",
        "select the columns",
        "the area under the ROC curve",
        "there is no mosaic",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not found(text)


def test_identifiers_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('places = told(knob)\n"""One row per well."""  # a comment\n')
    assert texts(tmp_path / "a.py") == ["One row per well.\na comment"]
