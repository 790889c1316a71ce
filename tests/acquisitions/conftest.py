"""Real exports of instruments, unpacked once, and how a section `acquisition` is completed."""

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wscnn.core.config import section

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "acquisitions.tar.xz"


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with real exports of ImageXpress, CellVoyager and Operetta."""
    if not ARCHIVE.is_file():
        pytest.skip(f"the real exports are not here: {ARCHIVE} is missing")
    folder = tmp_path_factory.mktemp("exports")
    with tarfile.open(ARCHIVE) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="session")
def settings() -> Callable[..., dict[str, Any]]:
    """Return a function that completes a section ``acquisition``: ``settings({"1": "DNA"}, z=3)``."""
    import json

    def complete(channels: dict[str, str], **keys: Any) -> dict[str, Any]:
        return section("acquisition", json.dumps({"channels": channels, **keys}))

    return complete
