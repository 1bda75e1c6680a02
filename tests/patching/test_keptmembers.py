"""What type information says of a kernel's tables is kept, and read again where it is not there or damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from pvops_core.images import KernelImage, load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching import keptmembers
from pvops_core.patching.derived import layout_from_types
from pvops_core.patching.keptmembers import kept_members
from pvops_core.patching.members import read_members
from pvops_core.testing.kernels import SmallKernel


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, for type information of any size."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(keptmembers, "WORTH", 1)
    return tmp_path / "pvops"


def kernel(layout: str) -> KernelImage:
    return load_image(SmallKernel(LAYOUTS[layout], typed=True).builder().build())


@pytest.mark.parametrize("layout", ["6.1-64", "7.2-64"])
def test_types_are_gone_through_once(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = kept_members(kernel(layout))
    monkeypatch.setattr(keptmembers, "read_members", None)
    assert kept_members(kernel(layout)) == first == read_members(kernel(layout))
    assert layout_from_types(kernel(layout)) is LAYOUTS[layout]


ROW = ["cpu.cpuid", "pv_ops", 0, False, ["void", "unsigned long"]]


@pytest.mark.parametrize(
    "body",
    [
        [["cpu.cpuid", "pv_ops", 0, False]],
        [[*ROW, 1]],
        [["cpu.cpuid", "pv_ops", -8, False, None]],
        [["cpu.cpuid", "pv_ops", "0", False, None]],
        [["cpu.cpuid", "pv_ops", 0, False, ["no such type"]]],
        {"rows": [ROW]},
    ],
)
def test_what_is_no_slot_is_read_again(body: Any) -> None:  # noqa: ANN401 - anything
    image = kernel("6.1-64")
    keptmembers._KEPT.write(image.sha256, b"", msgspec.msgpack.encode(body))
    assert kept_members(image) == read_members(image)
    assert layout_from_types(image) is LAYOUTS["6.1-64"]


def test_a_damaged_file_is_made_again(cache: Path) -> None:
    image = kernel("6.1-64")
    kept_members(image)
    (file,) = (cache / "members").iterdir()
    whole = file.read_bytes()
    for at in (0, 16, 20, len(whole) - 1):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert kept_members(image) == read_members(image)
        assert file.read_bytes() == whole


def test_a_folder_that_cannot_be_written_costs_no_more(cache: Path) -> None:
    cache.write_text("no folder")
    assert layout_from_types(kernel("6.1-64")) is LAYOUTS["6.1-64"]


def test_what_is_small_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keptmembers, "WORTH", 1 << 20)
    assert kept_members(kernel("6.1-64"))
    assert not cache.exists()
