"""Backends that were written for API 1: they are loaded, say what to use instead, and work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from pvops_core.backends import API, OLDEST_API, Backend, Loaded, chain, load_backends
from pvops_core.backends.choices import choices_for
from pvops_core.errors import UsageError
from pvops_core.guests import Kernel, builtin_guest
from pvops_core.hookspecs import HookDeprecationWarning
from pvops_core.images import load_image
from pvops_core.session import Session, platform_for
from pvops_core.testing.images import ElfBuilder

pytestmark = pytest.mark.filterwarnings("ignore::pvops_core.hookspecs.HookDeprecationWarning")

HEAD = """
from pvops_core.hookspecs import API, Backend, KernelPlatform, Platform, Surroundings, hookimpl
from pvops_core.kinds import MachineKind
from pvops_core.machine import BareMetal

def make(**more):
    return Backend(**{"name": "old", "api": API, "base": "native", "kinds": frozenset({MachineKind.X86_64})} | more)
"""
OPS = """
class Ops:
    def __init__(self, env):
        self.env = env
        self.calls = 0

    @hookimpl
    def io_delay(self, cpu):
        self.calls += 1

backend = make(ops=Ops)
"""
ON_A_PC = """
from pvops_native.platform import NativePlatform

class Mine(NativePlatform):
    def __init__(self, machine, guest, options):
        super().__init__(machine, guest, options)
        self.told = dict(options), self.options["memory"], options.get("mine", "nothing")

backend = make(platform=Mine)
"""
OWN = """
class Traps(BareMetal, Surroundings):
    def io_in(self, vcpu, port, size): return (1 << 8 * size) - 1
    def io_out(self, vcpu, port, size, value): self.machine.stop("poweroff", f"port {port:#x}")
    def idle(self): return False

def put(machine, image):
    for segment in image.segments:
        data = image.data[segment.offset : segment.offset + segment.file_size]
        machine.memory.write(segment.physical, data)

class Mine(Traps, Platform):
    def __init__(self, machine, guest, options):
        Platform.__init__(self, machine, guest, options)
        self.seen = guest, options["cmdline"], int(options["memory"])

    def build(self):
        put(self.machine, self.guest.image)
        self.built = True
        for segment in self.guest.image.segments:
            data = self.guest.image.data[segment.offset : segment.offset + segment.file_size]
            self.machine.memory.write(segment.physical, data)

class MineWithKernel(Traps, KernelPlatform):
    console_name = "ttyX0"

    def __init__(self, machine, kernel, options):
        KernelPlatform.__init__(self, machine, kernel, options)

    def build(self):
        put(self.machine, self.kernel.image)
        self.emit(b"loaded")

backend = make(PARTS)
"""


def put(folder: Path, code: str, **parts: str) -> Loaded:
    text = code.replace("PARTS", ", ".join(f"{name}={value}" for name, value in parts.items()))
    (folder / "old.py").write_text(HEAD + dedent(text))
    return load_backends([str(folder / "old.py")], {"PVOPS_PLUGIN_TIMEOUT": "0"})


def links(loaded: Loaded) -> tuple[Backend, ...]:
    assert not [error for error in loaded.errors if "old" in error.entry_point], loaded.errors
    return chain(loaded.backends["old"], loaded.backends)


def kernel() -> Kernel:
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xeb\xfe"))
    return Kernel(load_image(builder.build()))


def test_this_pvops_knows_them() -> None:
    assert (OLDEST_API, API) == (1, 2)


def test_ops_work_as_they_did(tmp_path: Path) -> None:
    with pytest.warns(HookDeprecationWarning) as seen:
        loaded = put(tmp_path, OPS)
    told = " ".join(str(one.message) for one in seen)
    assert "pvops_core.hookspecs.Backend goes with API 3: use pvops_core.backends.Backend" in told
    assert "backend 'old': a Backend of pvops_core.hookspecs goes with API 3: use" in told
    assert loaded.backends["old"].api == 1
    with Session(builtin_guest("6.1-64"), links(loaded), memory=4 << 20) as session:
        assert session.run(max_ns=500_000_000).reason == "poweroff"
        function: Any = session.switchboard.implementation("io_delay").function
        assert function.__self__.calls > 0


def test_a_platform_on_one_of_today_has_its_options_as_text(tmp_path: Path) -> None:
    loaded = put(tmp_path, ON_A_PC)
    guest = builtin_guest("6.1-64", "quiet")
    with Session(guest, links(loaded), memory=4 << 20, options={"mine": "5", "rtc": "7"}) as session:
        platform: Any = session.platform
        assert platform.told == ({"mine": "5", "rtc": "7", "memory": "4194304", "cmdline": "quiet"}, "4194304", "5")
        assert (platform.settings.rtc, platform.options["rtc"]) == (7, "7")
        assert session.run(max_ns=500_000_000).reason == "poweroff"
    assert choices_for(["old"], {"rtc": "7"}, loaded.backends) == {"old": {"rtc": "7"}}
    with pytest.raises(UsageError, match="a number from 0"):
        Session(guest, links(loaded), options={"rtc": "noon"})


def test_a_platform_of_its_own_gets_machine_guest_and_options(tmp_path: Path) -> None:
    loaded = put(tmp_path, OWN, platform="Mine", ops="type('Ops', (), {'__init__': lambda self, env: None})")
    guest = builtin_guest("6.1-64", "one two")
    with Session(guest, links(loaded), memory=4 << 20) as session:
        platform: Any = session.platform
        assert (platform.seen, platform.built) == ((guest, "one two", 4 << 20), True)
    with pytest.raises(UsageError, match="'old' cannot boot kernel images"):
        platform_for("kernel", kernel().kind, links(loaded))


@pytest.mark.parametrize("parts", [{"platform": "Mine"}, {}], ids=["both", "kernel only"])
def test_a_kernel_has_a_platform_of_its_own(tmp_path: Path, parts: Mapping[str, str]) -> None:
    loaded = put(tmp_path, OWN, kernel_platform="MineWithKernel", **parts)
    assert platform_for("kernel", kernel().kind, links(loaded)).console_name == "ttyX0"
    boot = import_module("pvops_core.boot")
    with boot.BootSession(kernel(), links(loaded), memory=32 << 20, livepatch=True) as session:
        assert bytes(session.platform.console) == b"loaded"
        assert dict(session.platform.options) == {"memory": str(32 << 20)}
        assert session.image_memory.read(0x1000000, 2) == b"\xeb\xfe"
        assert session.platform.spare_frames(1) == [32 << 20]
        assert session.livepatch
    with Session(builtin_guest("6.1-64"), links(loaded), memory=4 << 20) as session:
        assert type(session.platform).__name__ == ("Mine" if parts else "NativePlatform")
        assert parts or session.run(max_ns=500_000_000).reason == "poweroff"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"platform": "Platform"}, "its platform Platform lacks before_entry, build"),
        ({"platform": "MineWithKernel.build"}, "its platform is a function, not a class"),
        ({"platform": "object"}, "its platform object cannot be made with"),
        ({"platform": "type('Odd', (Mine,), {'__init__': lambda self: None})"}, "its platform Odd cannot be made with"),
        ({"kernel_platform": "KernelPlatform"}, "its kernel_platform KernelPlatform lacks before_entry, build"),
        ({"platform": "Mine", "kernel_platform": "'no class'"}, "its kernel_platform is a str, not a class"),
        ({"platform": "Mine", "kinds": "frozenset()"}, "names no kind of machine"),
    ],
)
def test_a_mistake_in_one_is_named(tmp_path: Path, parts: Mapping[str, str], told: str) -> None:
    (error,) = put(tmp_path, OWN, **parts).errors
    assert told in str(error)


def test_a_platform_made_by_hand_takes_a_plain_mapping(tmp_path: Path, machine: Callable[[], Any]) -> None:
    made = put(tmp_path, OWN, kernel_platform="MineWithKernel").backends["old"].kernel_platform  # type: ignore[attr-defined]
    platform = made(machine(), kernel(), {"memory": "4096", "mine": "yes"})
    assert platform.options["mine"] == "yes"
    assert (platform.kernel, platform.guest_memory) == (platform.guest, 4096)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        platform.nothing  # noqa: B018 - that it is not there
