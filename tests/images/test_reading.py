"""The bytes of a file that may be a kernel."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import reading
from pvops_core.images.reading import read_file


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "kernel"
    path.write_bytes(b"bytes")
    assert read_file(path, "k") == b"bytes"


def test_what_is_no_file_is_told_by_its_name_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nothing", "."):
        with pytest.raises(ImageError, match=r"^called so"):
            read_file(tmp_path / name, "called so")
    with pytest.raises(ImageError):
        read_file(Path("\0"), "called so")


def test_too_large_a_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FILE_LIMIT", 10)
    path = tmp_path / "large"
    path.write_bytes(bytes(11))
    with pytest.raises(ImageError, match="the most read"):
        read_file(path, "large")
