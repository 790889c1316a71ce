"""What people read is plain, idiomatic technical English: expressions that are not fail here, with what to write."""

import io
import json
import re
import tokenize
from pathlib import Path

import pytest
from runs import ROOT

#: What is read: text and Markdown as a whole, of Python its strings and comments, of notebooks their text.
READ = [
    "*.md",
    "config/**/*",
    "docs/**/*.md",
    "docs/**/*.ipynb",
    "docs/hooks/*.py",
    "mkdocs.yml",
    "Snakefile",
    "workflow/**/*",
    "wscnn/**/*",
]
_KINDS = {".ipynb", ".j2", ".js", ".md", ".py", ".rst", ".smk", ".yaml", ".yml", ""}

_THINGS = (
    "batch|bin|byte|cell|channel|class|control|core|evaluation|field|figure|file|fold|GPU|group|image|job|line|map|"
    "nucleus|object|page|pass|perturbation|phenotype|pixel|plane|plate|point|rank|rate|replicate|row|sample|score|"
    "screen|second|set|stage|step|table|task|training|unit|value|weight|well|worker"
)

#: Expressions that are not written here, each with what to write instead.
DIALECT = {
    rf"(?<!many )(?<![Hh]ow )(?<!folds )(?<!may )\b(?:{_THINGS})(?:e?s)? an? (?:{_THINGS})\b": "'one row per well'",
    r"\b(?:tell|tells|told|telling)\b": "'says', 'shows', 'reports', 'distinguishes'",
    r"\bmend(?:s|ed|ing)?\b": "'fix', 'correct'",
    r"\bby the clock\b": "'wall-clock time'",
    r"\bknobs?\b": "'setting', 'option'",
    r"\bplaces\b|\b(?:a|an|each|every|its|one|same|that|the|this|which) place\b(?! of)": "'position', 'where'",
    r"\barea under the curve\b": "'AUC'",
    r"\bselect part\b|\bto select (?:by|on)\b|\bselection (?:part|wells)\b": "'validation'",
    r"\bby heart\b": "'memorise', 'overfit'",
    r"\bmade[- ]up\b": "'simulated'",
    r"\bas a rule\b": "'usually', 'normally'",
    r"\ball that is\b": "'everything that is'",
    r"\banew\b": "'again', 'newly'",
    r"\bshall\b": "'must', 'is to'",
    r"\b(?:is|are) content\b": "'finds no problem'",
    r"\bso many\b": "'this many'",
    r"\bthis part of\b": "'this fraction of'",
    r"\b(?:files|results|images|tables|weights|pictures|modules) lie\b": "'are'",
    r"\bwithout a word\b": "'silently'",
    r"\bfor want of\b": "'for lack of'",
    r"\b(?:see|seen) coarsely\b": "'a coarse copy'",
    r"\bis asked of\b|\bis asked for\b|\bare asked for\b": "'is required', 'is requested'",
    r"\bby its own words\b": "'according to its metadata'",
    r"(?<![Tt]here )\b(?:is|are|was) no (?:finite|grid|image|model|mosaic|numbers?|rule|segmentation|table|text|"
    r"well|XML)\b": "'is not a'",
}

_PREFIX = re.compile(r"^[fFrRbBuU]+(?=[\"'])")


def read(path: Path) -> str:
    """Return what a person reads of a file: of Python strings and comments, of notebooks their text, else all of it."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
        # Consecutive comments and strings are one text: sentences continue over lines.
        return "\n".join(_PREFIX.sub("", token.string).strip("#\"': ") for token in tokens if token.type in kinds)
    # Sentences in comments continue over lines, too; in Markdown this also takes the mark of a heading.
    return re.sub(r"^\s*#+ ?", "", text, flags=re.MULTILINE)


def found(text: str) -> list[str]:
    """Return the expressions of `DIALECT` in a text, each with what to write instead."""
    text = " ".join(text.split())
    return [
        f"'{text[max(match.start() - 40, 0) : match.end() + 30]}': write {instead}"
        for pattern, instead in DIALECT.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("pattern", READ)
def test_texts_are_plain_english(pattern: str) -> None:
    files = [path for path in ROOT.glob(pattern) if path.is_file() and path.suffix in _KINDS]
    assert files
    problems = [f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in found(read(path))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "writes a row a well",
        "takes 80 ms a field, 9 fields a well",
        "the header tells its size",
        "the map tells them apart",
        "what the user was told",
        "mend the permissions first",
        "40 s by the clock",
        "the same seed and knobs",
        "the mean of the eight highest places",
        "above which a place belongs to an object",
        "AUC, the area under the curve",
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
        "the rows of a plate",
        "replaces the files",
        "the table as a whole",
        "recommended",
        "select the columns",
        "which folds score a well",
        "the area under the ROC curve",
        "there is no mosaic",
    ],
)
def test_plain_english_passes(text: str) -> None:
    assert not found(text)


def test_identifiers_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('places = told(knob)\n"""One row per well."""  # a comment\n')
    assert read(tmp_path / "a.py") == "One row per well.\na comment"
