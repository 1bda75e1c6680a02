"""A kernel that makes rounds: its command line names them, and its ramdisk has the program beside all it had."""

from __future__ import annotations

import attrs
import pytest

from pvops_core.errors import UsageError
from pvops_core.guests.linux.kernel import Kernel
from pvops_core.guests.workload.build import SOURCE
from pvops_core.guests.workload.program import program_path, with_workload
from pvops_core.images.cpio import Entry, archive
from pvops_core.machine.cpu.model.cpuid import MARK
from pvops_core.runs.workloads import WORKLOADS
from tests.ramdisk import entries


@attrs.frozen
class Image:
    pointer_size: int


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("given", [b"", archive([Entry.file("etc/motd", b"hello")]), b"\x1f\x8bodd"])
def test_the_ramdisk_has_the_program_of_the_kernels_width_last(bits: int, given: bytes) -> None:
    kernel = with_workload(Kernel(Image(bits // 8), given, "quiet"), "fork:3,mmap:100")  # type: ignore[arg-type]
    assert kernel.cmdline == "quiet pvops_workload=fork:3,mmap:100"
    assert kernel.initrd.startswith(given)
    start = kernel.initrd.index(b"070701", len(given))
    assert start % 4 == 0
    there = {name: data for name, _, data in entries(kernel.initrd[start:])}
    assert there["init"] == program_path(bits).read_bytes()
    assert "dev/console" in there


@pytest.mark.parametrize("cmdline", ["rdinit=/bin/sh", "quiet pvops_workload=fork"])
def test_a_command_line_that_would_have_another_first_process_is_refused(cmdline: str) -> None:
    with pytest.raises(UsageError, match=r"leave .* out of the command line"):
        with_workload(Kernel(Image(8), b"", cmdline), "fork:3")  # type: ignore[arg-type]


def test_source_and_package_name_the_same() -> None:
    """Workloads, and the leaf of the marks."""
    text = "".join(path.read_text() for path in SOURCE.glob("*.[ch]"))
    for name in WORKLOADS:
        assert f'{{ "{name}", ' in text
    assert text.count("_round, ") + text.count(", run, ") == len(WORKLOADS)
    assert f"MARK_LEAF = {MARK:#x}" in text
