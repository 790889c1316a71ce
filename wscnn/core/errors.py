"""Mistakes in a user's input, reported in one sentence each instead of a traceback."""

from collections.abc import Hashable, Iterable, Sequence


class UserError(Exception):
    """One or more mistakes in what the user gave.

    Parameters
    ----------
    problems
        One sentence each: it names the file, row or key, says what is wrong and what to do.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))


def listed(items: Iterable[object], most: int = 10) -> str:
    """Return items in words: the first `most` of them and how many more there are, or ``none``."""
    every = [str(item) for item in items]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more or "none"


def first_problems(problems: Sequence[str], most: int, n: int | None = None, of: str = "") -> list[str]:
    """Return the first `most` sentences, each on a file, and one that says how many more files there are.

    Parameters
    ----------
    problems
        The sentences.
    most
        Sentences to return.
    n
        How many files there are, where not all have a sentence.
    of
        The folder that the last sentence names.
    """
    more = (len(problems) if n is None else n) - most
    where = f"{of}: " if of else ""
    return [*problems[:most], *([f"{where}{more} more files like these"] if more > 0 else [])]


def merged(found: Iterable[tuple[Hashable, str, str]]) -> list[str]:
    """Return one sentence per kind of mistake, however often it was made.

    Parameters
    ----------
    found
        Triples ``(kind, sentence, name)``. The first sentence of a kind is kept; of the others of that kind only
        their names are listed.
    """
    first: dict[Hashable, str] = {}
    others: dict[Hashable, list[str]] = {}
    for kind, sentence, name in found:
        if kind in first:
            others.setdefault(kind, []).append(name)
        else:
            first[kind] = sentence
    return [
        f"{sentence}; the same holds for {listed(others[kind])}" if kind in others else sentence
        for kind, sentence in first.items()
    ]


def short(message: object) -> str:
    """Return a text on one line, shortened to about 300 characters."""
    text = " ".join(str(message).split())
    return text if len(text) <= 300 else f"{text[:150]} ... {text[-150:]}"
