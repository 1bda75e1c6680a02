from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from weakref import ref

import pytest

from pvops_core.backends import Backend
from pvops_core.errors import ImageError, UsageError
from pvops_core.guests import Kernel, read_kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.session import Session, platform_for
from pvops_core.testing.images import make_bzimage

MakeElf = Callable[..., bytes]
Boot = Callable[..., Session]
POWER_OFF = "66ba0406 66b80020 66ef f4"  # mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt
SAY_OK = "66baf803 b04f ee b04b ee"  # mov dx, 0x3f8; "O", "K"


@pytest.mark.parametrize("bits", [64, 32])
def test_a_kernel_prints_and_powers_off(boot: Boot, bits: int) -> None:
    session = boot(SAY_OK + POWER_OFF, bits)
    assert session.machine.kind is (MachineKind.X86_64 if bits == 64 else MachineKind.PAE)
    assert session.run().reason == "poweroff"
    assert bytes(session.platform.console) == b"OK"


def test_nothing_keeps_the_machine_of_a_session_that_is_over(backends: dict[str, Backend], elf: MakeElf) -> None:
    kernel = Kernel(load_image(elf(SAY_OK + POWER_OFF, 64)), b"", "")
    with Session(kernel, (backends["native"],), memory=32 << 20) as session:
        session.run()
        there = ref(session.machine)
    del session
    gc.collect()
    assert there() is None


def test_a_run_ends_at_the_text_waited_for(boot: Boot) -> None:
    session = boot(SAY_OK * 3 + POWER_OFF, until="KO")
    assert session.run().reason == "until"
    assert bytes(session.platform.console).startswith(b"OKO")


def test_a_loop_without_interrupts_ends_in_time_at_a_named_address(boot: Boot) -> None:
    session = boot("90 fa ebfe")
    begin = time.monotonic()
    stop = session.run(max_seconds=0.5)
    assert stop.reason == "timeout"
    assert 0.5 <= time.monotonic() - begin < 2
    assert "vcpu 0 at start+0x2 (0x1000002)" in stop.detail


def test_virtual_time_limits_name_the_address_too(boot: Boot) -> None:
    stop = boot("ebfe").run(max_ns=1_000_000)
    assert stop.reason == "timeout"
    assert "start+0x0" in stop.detail


def test_two_runs_are_the_same_run(boot: Boot) -> None:
    code = "0f31 66baf803 ee 0f31 ee" + POWER_OFF  # prints what rdtsc says
    first, second = boot(code, seed=3), boot(code, seed=3)
    for session in (first, second):
        assert session.run().reason == "poweroff"
    assert first.platform.console == second.platform.console
    assert first.machine.log.sha256 == second.machine.log.sha256
    assert first.machine.clock.ns == second.machine.clock.ns


def test_the_hash_is_of_the_text_as_it_is_in_memory(boot: Boot) -> None:
    code = bytes.fromhex("c60425 08000001 cc" + POWER_OFF)  # writes int3 over its own ninth byte, which has run by then
    session = boot(code.hex())
    before = hashlib.sha256(code).hexdigest()
    assert session.text_sha256() == before
    session.run(max_ns=1_000_000)
    assert session.text_sha256() == hashlib.sha256(code[:8] + b"\xcc" + code[9:]).hexdigest() != before


def test_kernels_are_read_from_files(tmp_path: Path, elf: MakeElf) -> None:
    image, disk = tmp_path / "vmlinuz", tmp_path / "initrd"
    image.write_bytes(make_bzimage(elf(POWER_OFF)))
    disk.write_bytes(b"cpio")
    kernel = read_kernel(image, disk, "quiet")
    assert (kernel.initrd, kernel.cmdline, kernel.kind) == (b"cpio", "quiet", MachineKind.X86_64)
    with pytest.raises(ImageError, match="cannot be read"):
        read_kernel(image, tmp_path / "nothing")
    with pytest.raises(ImageError):
        read_kernel(disk)


def test_what_does_not_fit_is_refused(boot: Boot, elf: MakeElf, backends: dict[str, Backend]) -> None:
    with pytest.raises(UsageError, match="ramdisk of 24576 KiB"):
        boot(POWER_OFF, initrd=bytes(24 << 20))
    with pytest.raises(UsageError, match="a command line of 4000 bytes"):
        boot(POWER_OFF, cmdline="x" * 4000)
    low = Kernel(load_image(elf(POWER_OFF, base=0x8000)))
    with pytest.raises(ImageError, match="below 1 MiB"):
        Session(low, (backends["native"],))
    with pytest.raises(UsageError, match="not enough"):
        Session(Kernel(load_image(elf(POWER_OFF))), (backends["native"],), memory=16 << 20)


def test_a_platform_hosts_the_guests_that_it_has_loaders_for(elf: MakeElf, backends: dict[str, Backend]) -> None:
    kernel = Kernel(load_image(elf(POWER_OFF)))
    native = backends["native"]
    what = (kernel.boot_protocol, kernel.kind)
    assert platform_for(*what, (native,)) is native.platform
    assert native.platform is not None
    small = type("Small", (native.platform,), {"loaders": {"builtin": native.platform.loaders["builtin"]}})
    own = Backend(name="own", api=1, base="native", platform=small, kinds=native.kinds)
    with pytest.raises(UsageError, match="'own' cannot boot kernel images"):
        platform_for(*what, (own, native))
    none = Backend(name="none", api=1, base="native")
    assert platform_for(*what, (none, native)) is native.platform
    narrow = Backend(name="narrow", api=1, platform=native.platform, kinds=frozenset({MachineKind.PAE}))
    with pytest.raises(UsageError, match="no x86_64 machine"):
        platform_for(*what, (narrow,))
