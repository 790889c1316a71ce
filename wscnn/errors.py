"""Mistakes in a user's input, told in one sentence each instead of a traceback."""

from collections.abc import Iterable


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
