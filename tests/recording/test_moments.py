"""From a kernel and the moments of its boot to a record that is read again."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import KernelImage, load_image
from pvops_core.ops import LAYOUTS
from pvops_core.patching.bootrecords import read_record
from pvops_core.recording.document import describe
from pvops_core.recording.moments import HEAD, Watcher, read_subject
from pvops_core.recording.stub import RecordingError, Stub
from pvops_core.testing.images import ElfBuilder
from pvops_core.testing.kernels import Alternative, SmallKernel
from pvops_core.testing.qemu import FUNCTIONS, QemuMachine, Story, story

INLINE = Alternative(1, 0x110, inverted=True, code=b"\x0f\x20\xd8")


def small(name: str, *more: str) -> SmallKernel:
    layout = LAYOUTS[name]
    functions = (*FUNCTIONS, *more, *(f"filler{number}" for number in range(HEAD // 16)))
    return SmallKernel(layout, range(len(layout.slots)), [INLINE], functions, typed=not layout.record_size)


def watched(told: Story, image: KernelImage, *, init: bool = True) -> dict[str, Any]:
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: QemuMachine(told).serve(theirs))
    thread.start()
    try:
        subject = read_subject(image)
        return describe(subject, Watcher(Stub(ours, 20), subject).watch(init=init))
    finally:
        ours.close()
        thread.join()
        theirs.close()


def site(kernel: SmallKernel, number: int) -> int:
    return read_subject(load_image(kernel.builder().build())).sites[number].address


def test_a_kernel_that_patches_in_one_step(tmp_path: Path) -> None:
    kernel = small("6.12-64")
    image = load_image(kernel.builder().build())
    first, second, third = (site(kernel, number) for number in range(3))
    told = story(
        kernel,
        {
            "apply_alternatives": {first: "e90000000000", kernel.addresses["boot_cpu_data"]: "ab"},
            "apply_alternatives returned": {first: "e80102030490", second: "0f20d80f1f00"},
            "alternative_instructions returned": {third: "cccccccccccc"},
            "run_init_process": {first: "ffffffffffff"},
        },
    )
    document = watched(told, image)
    (tmp_path / "record.json").write_text(json.dumps({"run": "small", **document}))
    record = read_record(tmp_path / "record.json", image)
    assert record.sites["final"][first].hex() == record.alternatives[first].hex() == "e80102030490"
    assert record.sites["final"][second].hex() == "0f20d80f1f00"
    assert record.sites["final"][third] == image.read(third, 6)
    assert record.table == tuple(kernel.addresses[name] for name in kernel.linked)
    assert record.boot_cpu_data[:1] == b"\xab"
    assert len(record.boot_cpu_data) == HEAD
    groups = document["alternatives"]
    assert groups["start_differs"] == []
    assert groups["enter_differs"] == [[0, "e90000000000"]]
    assert groups["end_differs"] == [[2, "cccccccccccc"]]
    assert groups["init_differs"] == [[0, "ffffffffffff"], [2, "cccccccccccc"]]
    assert [groups["kinds"][number] for number in groups["kind"][:2]] == [
        [{"feat": 117, "flags": 2, "len": 6, "repl_len": 5}],
        [{"feat": 117, "flags": 2, "len": 6, "repl_len": 5}, {"feat": 0x110, "flags": 1, "len": 6, "repl_len": 3}],
    ]
    assert groups["repl"][1].endswith("/0f20d8")
    assert document["alt"][:3] == [-1, 0, -1]
    assert document["alt_kinds"] == [{"feat": 0x110, "not": True, "repl": "0f20d8"}]
    assert document["special"]["nop_func"] == f"{kernel.addresses['nop_func']:#x}"
    assert document["ops"][1][2] == "native_" + document["ops"][1][0].rpartition(".")[2]
    assert [name for name, _at in document["log"]] == [
        "start_kernel",
        "alternative_instructions",
        "apply_alternatives",
        "apply_alternatives returned",
        "alternative_instructions returned",
        "run_init_process",
    ]


def test_a_kernel_with_a_paravirt_step(tmp_path: Path) -> None:
    kernel = small("6.1-64", "apply_paravirt")
    image = load_image(kernel.builder().build())
    first = site(kernel, 0)
    told = story(
        kernel,
        {"apply_paravirt returned": {first: "e81111111190"}, "apply_alternatives returned": {first: "909090909090"}},
    )
    document = watched(told, image, init=False)
    (tmp_path / "record.json").write_text(json.dumps({"run": "small", **document}))
    record = read_record(tmp_path / "record.json", image)
    assert document["format"] == "pvops-oracle/1"
    assert record.sites["paravirt"][first].hex() == "e81111111190"
    assert record.sites["final"][first].hex() == "909090909090"
    assert document["alternatives"]["n"] == 1
    assert "init_differs" not in document["alternatives"]


def test_arguments_of_i386_are_in_registers() -> None:
    kernel = small("6.1-32", "apply_paravirt")
    document = watched(story(kernel), load_image(kernel.builder().build()))
    assert document["ptr"] == 4
    assert document["n"] == len(LAYOUTS["6.1-32"].slots)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (0, r"before start_kernel: the machine ended"),
        (1, r"before alternative_instructions: the machine ended"),
        (4, r"before apply_alternatives returned: the machine ended"),
        (6, r"before run_init_process: the machine ended"),
    ],
)
def test_a_boot_that_does_not_come_so_far_says_where(keep: int, message: str) -> None:
    kernel = small("6.12-64")
    told = story(kernel)
    del told.stops[keep:]
    with pytest.raises(RecordingError, match=message):
        watched(told, load_image(kernel.builder().build()))


def test_a_boot_that_leaves_a_step_out_says_which() -> None:
    kernel = small("6.12-64")
    told = story(kernel)
    del told.stops[2:5]
    with pytest.raises(RecordingError, match="returned without calling apply_alternatives"):
        watched(told, load_image(kernel.builder().build()))


def test_what_is_freed_is_not_looked_at_again() -> None:
    kernel = small("6.12-64")
    first = site(kernel, 0)
    builder = kernel.builder()
    builder.symbol("__init_begin", first)
    builder.symbol("__init_end", first + 8)
    document = watched(story(kernel, {"run_init_process": {first: "cc" * 14}}), load_image(builder.build()))
    assert document["alternatives"]["init_differs"] == [[1, "cc" * 6]]


def test_kernels_that_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    builder = ElfBuilder()
    builder.text(".text", bytes(16))
    with pytest.raises(ImageError, match="annotates no call"):
        read_subject(load_image(builder.build()))
    layout = LAYOUTS["6.12-64"]
    image = load_image(SmallKernel(layout, range(3), typed=True).builder().build())
    with pytest.raises(ImageError, match="no symbol alternative_instructions"):
        watched(Story(), image)
    monkeypatch.setattr("pvops_core.recording.moments.find_table", lambda image, _sites: Told(image))
    with pytest.raises(ImageError, match=r"do not say where the 6\.12-64 table is"):
        read_subject(image)


class Told:
    """A table of which nothing but one slot is known."""

    def __init__(self, image: KernelImage) -> None:
        self.slots: Mapping[int, int] = {0: image.entry}
        self.layout = LAYOUTS["6.12-64"]
