"""What is no saved session's file is told as such."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pvops_core.saved import container
from pvops_core.saved.errors import SavedError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("path", ["nowhere", ".", "/dev/null", "a\0b"])
def test_what_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(SavedError, match=r"cannot be read|no regular|not a regular"):
        container.read(tmp_path / path)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SavedError, match="not a regular file"):
        container.read(tmp_path / "pipe")
