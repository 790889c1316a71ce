"""What people read is plain, idiomatic technical English: expressions that are not fail here, with what to write."""

import io
import json
import re
import tokenize
from pathlib import Path

import pytest
from runs import ROOT

# What is read: text and Markdown as a whole, of Python its strings and comments, of notebooks their text.
READ = [
    "*.md",
    "config/*",
    "docs/**/*.md",
    "docs/**/*.ipynb",
    "docs/hooks/*.py",
    "workflow/**/*.yaml",
    "workflow/**/*.smk",
    "workflow/**/*.rst",
    "workflow/Snakefile",
    "Snakefile",
    "mkdocs.yml",
]

_THINGS = (
    "row|well|field|plate|image|cell|file|second|job|map|group|point|weight|control|object|step|pixel|byte|task|score|"
    "page|worker|pass|fold|rate|training|table|value|replicate|GPU|core|screen|channel|batch|phenotype|perturbation"
)

#: Expressions that are not written here, and what is written instead.
DIALECT = {
    rf"\b(?:{_THINGS}|nucleus)(?:e?s)? an? (?:{_THINGS})\b": "'one row per well', 'fields per well'",
    r"\b(?:tell|tells|told|telling)\b": "'says', 'reports', 'distinguishes', 'gives'",
    r"\bmend(?:s|ed|ing)?\b": "'fix'",
    r"\bby the clock\b": "'wall-clock time'",
    r"\bknobs?\b": "'option', 'setting'",
    r"\bplaces\b|\b(?:a|an|the|one|each|every|this|that|its|same) place\b": "'position'; 'where'",
    r"\barea under the curve\b": "'AUC'",
    r"\bmade[- ]up\b": "'simulated'",
    r"\bas a rule\b": "'usually', 'normally'",
    r"\ball that is\b": "'everything that is'",
    r"\bby heart\b": "'memorise', 'overfit'",
    r"\bshall\b": "'must', 'has to', 'will'",
    r"\b(?:is|are) content\b": "'finds no problem'",
    r"\banew\b": "'again', 'newly'",
    r"\bso many\b": "a number",
    r"\bthis part of\b": "'this fraction of'",
    r"\b(?:files|results|images|tables|weights|pictures|modules) lie\b": "'are'",
    r"(?<![Tt]here )\b(?:is|are|was) no (?:grid|numbers?|segmentation|rule|well|table|mosaic|model|image)\b": "'not a'",
    r"\bwithout a word\b": "'silently'",
}


def read(path: Path) -> str:
    """Return what a person reads of a file."""
    text = path.read_text()
    if path.suffix == ".ipynb":
        return "\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        kinds = (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
        return "\n".join(token.string for token in tokens if token.type in kinds)
    return text


def found(text: str) -> list[str]:
    """Return the expressions of the dialect in a text, each with what to write instead."""
    text = " ".join(text.split())
    return [
        f"'{text[max(match.start() - 30, 0) : match.end() + 20]}': write {instead}"
        for pattern, instead in DIALECT.items()
        for match in re.finditer(pattern, text)
    ]


@pytest.mark.parametrize("pattern", READ)
def test_texts_are_plain_english(pattern: str) -> None:
    files = [path for path in ROOT.glob(pattern) if path.is_file() and path.suffix != ".tsv"]
    assert files, pattern
    problems = [f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in found(read(path))]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    "text",
    [
        "writes a row a well",
        "takes 80 ms a field, 9 fields a well",
        "the map tells them apart",
        "what the user was told",
        "mend this first",
        "40 s by the clock",
        "the same seed and knobs",
        "the mean of the eight highest places",
        "AUC, the area under the curve",
    ],
)
def test_the_dialect_is_recognised(text: str) -> None:
    assert found(text)


@pytest.mark.parametrize(
    "text", ["one row per well", "the rows of a plate", "recommended", "a fold as a whole", "replaces"]
)
def test_plain_english_passes(text: str) -> None:
    assert not found(text)


def test_of_python_only_texts_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('places = told(knob)\n"""One row per well."""  # a comment\n')
    assert read(tmp_path / "a.py").splitlines() == ['"""One row per well."""', "# a comment"]
