"""A session that was saved and loaded, here or in another process, comes to the end that it would have come to."""

from __future__ import annotations

import filecmp
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from pvops_native.platform import NativePlatform

from pvops_core.backends import chain, load_backends
from pvops_core.errors import HostError, UsageError
from pvops_core.guests import Kernel, builtin_guest, read_kernel
from pvops_core.saved.errors import SavedError
from pvops_core.session import Session
from pvops_core.session.saving import load
from tests.session.test_ophooks import patching

if TYPE_CHECKING:
    from pvops_core.backends import Backend
    from pvops_core.machine import Vcpu

CELLS = (
    *(("native", layout) for layout in ("2.6.24", "2.6.24-pae", "6.1-64")),
    *(("xen", layout) for layout in ("2.6.24-pae", "6.1-64")),
    ("lguest", "2.6.24"),
    ("kvm", "6.1-64"),
)
EXAMPLE = str(Path(__file__).parents[2] / "examples/pvops-kvm")


def end(session: Session) -> list[Any]:
    """What a run came to."""
    stop, machine = session.run(), session.machine
    digests = [hashlib.sha256(each).hexdigest() for each in (machine.memory.array, bytes(session.platform.console))]
    counts = dict(sorted(machine.counts.items()))
    return [stop.reason, machine.log.sha256, machine.clock.ns, *digests, machine.blocks, counts]


ELSEWHERE = """
import json, sys
from pvops_core.session import Session
from tests.session.test_saving import end
with Session.load(sys.argv[1]) as session:
    json.dump(end(session), sys.stdout)
"""


def elsewhere(path: Path) -> list[Any]:
    """What it comes to in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert not done.returncode, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    """Those installed, and the example of a hypervisor under a PC."""
    return dict(load_backends([EXAMPLE]).backends)


STEPS = (1, 50_000, 150_000, 5_000_000, 10_000_000)
"""Nanoseconds: before the guest patches itself, in the midst of it, behind Xen's switch to the late write_cr3."""


@pytest.mark.parametrize(("backend", "layout"), CELLS)
def test_the_built_in_guest_goes_on(backends: dict[str, Backend], backend: str, layout: str, tmp_path: Path) -> None:
    vcpus = 1 if backend == "lguest" else 2
    with Session.of_builtin(layout, backend, backends=backends, vcpus=vcpus) as session:
        for number, step in enumerate(STEPS):
            session.run(max_ns=step)
            session.save(tmp_path / str(number), "somewhere")
        never_saved = end(session)
    for number in range(len(STEPS)):
        with Session.load(tmp_path / str(number), backends=backends) as loaded:
            assert end(loaded) == never_saved


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """A small one in a file, which patches itself and powers off."""
    image = tmp_path / "vmlinux"
    image.write_bytes(patching().data)
    return read_kernel(image)


@pytest.fixture
def saved(kernel: Kernel, backends: dict[str, Backend], tmp_path: Path) -> tuple[Path, list[Any]]:
    """It at a place, and what it comes to."""
    file = tmp_path / "saved"
    with Session(kernel, (backends["native"],), memory=32 << 20) as session:
        session.run_to("alternatives")
        session.save(file, "alternatives")
        return file, end(session)


def test_a_kernel_goes_on_in_another_process(saved: tuple[Path, list[Any]]) -> None:
    assert elsewhere(saved[0]) == saved[1]


def test_what_was_saved_can_be_saved_again_and_is_the_same(saved: tuple[Path, list[Any]], tmp_path: Path) -> None:
    again = tmp_path / "again"
    with Session.load(saved[0]) as session:
        assert "paravirt" not in session.points.passed
        session.save(again, "alternatives")
    assert filecmp.cmp(again, saved[0], shallow=False)
    assert again.stat().st_mode & 0o777 == saved[0].stat().st_mode & 0o777


@pytest.mark.parametrize("other", ["seed", "vcpus", "memory", "options", "count_instructions", "tool_frames"])
def test_another_session_is_refused(
    saved: tuple[Path, list[Any]], kernel: Kernel, backends: dict[str, Backend], other: str
) -> None:
    values: dict[str, Any] = {
        "seed": 1,
        "vcpus": 2,
        "memory": 33 << 20,
        "options": {"rtc": "1"},
        "count_instructions": True,
        "tool_frames": 1,
    }
    fields = {"vcpus": "cpus", "options": "settings[rtc]", "count_instructions": "counted", "tool_frames": "memory"}
    links = (backends["native"],)
    with Session(kernel, links, **{"memory": 32 << 20} | {other: values[other]}) as session:
        with pytest.raises(SavedError, match="the file is of") as refused:
            load(session, links, saved[0])
        field = fields.get(other, other)
        assert refused.value.field in {field, "settings[memory]"}
        assert refused.value.saved != refused.value.here


def test_another_guest_is_refused(saved: tuple[Path, list[Any]], kernel: Kernel) -> None:
    for guest, field in (
        (attrs.evolve(kernel, cmdline="x"), "cmdline"),
        (attrs.evolve(kernel, initrd=b"x"), "initrd"),
        (attrs.evolve(kernel, image=attrs.evolve(kernel.image, sha256="00")), "kernel"),
        (builtin_guest("6.1-64"), "guest"),
    ):
        with pytest.raises(SavedError) as refused:
            Session.load(saved[0], guest=guest)
        assert refused.value.field == field


def test_a_file_that_has_changed_where_it_was_is_refused(saved: tuple[Path, list[Any]], kernel: Kernel) -> None:
    Path(kernel.image.path).write_bytes(kernel.image.data + b"\0")
    with pytest.raises(SavedError, match="kernel: the file is of"):
        Session.load(saved[0])


def test_a_backend_that_is_not_there_is_refused(saved: tuple[Path, list[Any]], backends: dict[str, Backend]) -> None:
    with pytest.raises(UsageError, match="no backend 'native'"):
        Session.load(saved[0], backends={"xen": backends["xen"]})
    with pytest.raises(TypeError, match="seed"):
        Session.load(saved[0], seed=3)


def test_a_file_that_cannot_be_written_is_as_it_was(
    kernel: Kernel, backends: dict[str, Backend], tmp_path: Path
) -> None:
    with Session(kernel, (backends["native"],), memory=32 << 20) as session:
        with pytest.raises(HostError, match="cannot be written: No such file"):
            session.save(tmp_path / "nowhere" / "file")
        with pytest.raises(UsageError, match="no regular file"):
            session.save(tmp_path)
        assert [each.name for each in tmp_path.iterdir()] == ["vmlinux"]


def test_a_keeper_whose_state_is_not_plain_is_named(
    kernel: Kernel, backends: dict[str, Backend], tmp_path: Path
) -> None:
    class Odd:
        def save(self) -> dict[str, object]:
            return {"what": {1, 2}.__iter__()}

        def load(self, state: dict[str, object]) -> None:
            pass

    with Session(kernel, (backends["native"],), memory=32 << 20) as session:
        session.machine.keep(Odd())
        with pytest.raises(SavedError, match=r"Odd: cannot be saved: state\['what'\]: set_iterator"):
            session.save(tmp_path / "file")


def test_hooks_are_asked_for_again(kernel: Kernel, backends: dict[str, Backend], tmp_path: Path) -> None:
    calls: list[int] = []

    def watch(cpu: Vcpu) -> None:
        calls.append(cpu.index)

    with Session(kernel, (backends["native"],), memory=32 << 20) as session:
        session.run(max_ns=12)
        session.hooks.install("write_cr3", watch)
        session.save(tmp_path / "file")
        never_saved = end(session)
    assert calls
    seen = len(calls)
    with pytest.raises(SavedError, match="OpHooks: has a part in the session, and there is none here"):
        Session.load(tmp_path / "file")
    with pytest.raises(SavedError, match=r"names the hook '.*watch', which is not here"):
        Session.load(tmp_path / "file", prepare=lambda session: session.hooks)
    with Session.load(tmp_path / "file", prepare=lambda session: session.hooks.install("write_cr3", watch)) as loaded:
        assert end(loaded) == never_saved
    assert len(calls) == 2 * seen


@pytest.mark.parametrize("backend", ["native"])
def test_what_the_device_has_taken_is_there_and_what_is_still_typed_is_not(
    kernel: Kernel, backends: dict[str, Backend], backend: str, tmp_path: Path
) -> None:
    with Session(kernel, (backends[backend],), memory=32 << 20) as session:
        session.platform.typed(b"taken")
        session.platform.keyboard.type(b"not taken")
        session.save(tmp_path / "file")
    with Session.load(tmp_path / "file") as loaded:
        assert isinstance(loaded.platform, NativePlatform)
        assert bytes(loaded.platform.board.uart.waiting) == b"taken"
        assert loaded.platform.keyboard.take(0) is None


@pytest.mark.parametrize("name", ["vmlinuz-6.1.0-56-cloud-amd64"])
def test_a_distribution_s_kernel_goes_on_in_another_process(
    backends: dict[str, Backend], kernel_path: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    kernel = read_kernel(kernel_path(name), None, "console=ttyS0")
    with Session(kernel, chain(backends["native"], backends)) as session:
        session.run_to("start_kernel", max_seconds=100)
        session.save(tmp_path / "saved")
        session.run_to("patched", max_seconds=100)
        there = [session.machine.log.sha256, session.machine.clock.ns]
    with Session.load(tmp_path / "saved") as loaded:
        loaded.run_to("patched", max_seconds=100)
        assert [loaded.machine.log.sha256, loaded.machine.clock.ns] == there
