"""Simulated images and screens whose truth is known."""

from pathlib import Path

from wscnn.core.errors import UserError


def check_new(folder: Path) -> None:
    """Raise a UserError when `folder` exists: no file of the user is overwritten."""
    if folder.exists():
        raise UserError(f"{folder}: exists already; name a folder that does not, or delete it")
