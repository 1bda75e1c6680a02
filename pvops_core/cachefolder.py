"""Where pvops keeps what it can do without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str]) -> Path | None:
    """Where pvops keeps what it can do without, of the user whose environment this is; None for nowhere."""
    cache, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    folder = Path(cache) if os.path.isabs(cache) else Path(home, ".cache") if os.path.isabs(home) else None  # noqa: PTH117
    return folder and folder / "pvops"
