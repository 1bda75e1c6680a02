"""Where pvops keeps what it can do without."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.cachefolder import cache_folder


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"XDG_CACHE_HOME": "/a", "HOME": "/b"}, "/a/pvops"),
        ({"XDG_CACHE_HOME": "a", "HOME": "/b"}, "/b/.cache/pvops"),
        ({"HOME": "/b"}, "/b/.cache/pvops"),
        ({"HOME": "b"}, None),
        ({}, None),
    ],
)
def test_a_relative_path_is_as_good_as_none(environ: dict[str, str], folder: str | None) -> None:
    assert cache_folder(environ) == (folder and Path(folder))
