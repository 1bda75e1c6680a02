"""Records of real boots, of both formats: read whole, or refused with what is wrong with them."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.patching.bootrecords import find_records, read_record
from pvops_core.testing.images import ElfBuilder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pvops_core.images import KernelImage

SITES: Mapping[str, Any] = {"n": 2, "va0": "0x1000", "dva": [0, 16], "len": [2, 3], "final": "0102030405"}
TWO_STEPS = {"format": "pvops-oracle/1", "run": "a", "ops": [["irq.irq_disable", "0x2000", None]], **SITES} | {
    "pv": "1112131415"
}
ONE_STEP = TWO_STEPS | {
    "format": "pvops-oracle/2",
    "alternatives": {"n": 1, "va0": "0x3000", "dva": [0], "len": [1], "final": "90", "end_differs": [[0, "cc"]]},
    "boot_cpu_data_head": "00" * 8,
}
FINAL = {0x1000: b"\1\2", 0x1010: b"\3\4\5"}


@pytest.fixture(scope="module")
def image() -> KernelImage:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    return load_image(builder.build())


def test_both_formats_are_read(image: KernelImage, tmp_path: Path) -> None:
    for name, document in (("a.json", TWO_STEPS), ("b.json", ONE_STEP)):
        (tmp_path / name).write_text(json.dumps({**document, "vmlinux_sha256": image.sha256}))
    (tmp_path / "c.json.gz").write_bytes(gzip.compress(json.dumps({**ONE_STEP, "vmlinux_sha256": "other"}).encode()))
    (tmp_path / "d.json").write_text('{"format": "something else"}')
    (tmp_path / "e.json").write_text('[{"format": ["pvops-oracle/1"]}]')
    (tmp_path / "f.txt").write_text("not looked at")
    two, one = find_records(tmp_path, image.sha256)
    assert (two.path, two.run, two.table) == (str(tmp_path / "a.json"), "a", (0x2000,))
    assert two.sites == {"paravirt": {0x1000: b"\x11\x12", 0x1010: b"\x13\x14\x15"}, "final": FINAL}
    assert (two.alternatives, two.boot_cpu_data) == ({}, b"")
    assert one.sites == {"final": FINAL}
    assert (one.alternatives, one.boot_cpu_data) == ({0x3000: b"\x90"}, bytes(8))
    assert (two.ends, one.ends) == ({}, {0x3000: b"\xcc"})
    with pytest.raises(ImageError, match="does not say which features"):
        two.features(image)
    with pytest.raises(ImageError, match="does not say where the features are"):
        one.features(image)
    with pytest.raises(ImageError, match="is of another kernel") as caught:
        read_record(tmp_path / "c.json.gz", image)
    assert caught.value.path == str(tmp_path / "c.json.gz")
    for name in ("d.json", "e.json"):
        with pytest.raises(ImageError, match="is no record: its format is none of"):
            read_record(tmp_path / name, image)


@pytest.mark.parametrize("document", [TWO_STEPS, ONE_STEP])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 4}, "bytes for 4 places: 2 addresses, 2 lengths, together 5"),
        ({"final": "0102"}, "final has 2 bytes for 2 places: 2 addresses, 2 lengths, together 5"),
        ({"final": "xx"}, "non-hexadecimal"),
        ({"len": [2, -3]}, "together -1"),
        ({"len": [2, 3, 1]}, "3 lengths, together 6"),
        ({"ops": [["", None, None]]}, "is no whole"),
        ({"va0": 5}, "is no whole"),
        ({"dva": {}}, "is no whole"),
        ({"alternatives": 7}, "is no whole"),
        ({"alternatives": {**SITES, "end_differs": [[2, "90"]]}}, "end_differs has numbers of none of 2 places"),
        ({"boot_cpu_data_head": "zz"}, "is no whole"),
    ],
)
def test_a_damaged_record_is_named(
    tmp_path: Path, document: Mapping[str, Any], changes: Mapping[str, Any], message: str
) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({**document, "vmlinux_sha256": "", **changes}))
    with pytest.raises(ImageError, match=message) as caught:
        find_records(tmp_path, "")
    assert caught.value.path == str(path)


def test_a_step_that_is_missing_is_named(tmp_path: Path) -> None:
    document = {**TWO_STEPS, "vmlinux_sha256": ""}
    del document["pv"]
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(ImageError, match=r"KeyError.*pv"):
        find_records(tmp_path, "")


@pytest.mark.parametrize(
    "data", [b"{", b"\xff", b"[" * 100_000, b"\x1f\x8bno gzip", gzip.compress(b'{"format": 1}' * 9, mtime=0)[:-9]]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.json").write_bytes(data)
    with pytest.raises(ImageError, match=r"bad\.json: cannot be read"):
        find_records(tmp_path, "")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        find_records(tmp_path / "nothing", "")
