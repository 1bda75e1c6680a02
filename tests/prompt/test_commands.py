"""What a prompt's names do, on a small kernel."""

from __future__ import annotations

import io
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.errors import PvopsError, UsageError
from pvops_core.guests import Kernel
from pvops_core.prompt.commands import Commands
from pvops_core.session import Session
from tests.session.selfpatching import SelfPatching

SPIN = b"\xeb\xfe"
PRINT = bytes.fromhex("66baf803 b04f ee b00d ee b00a ee")  # "O", CR and LF to the first serial port
ANSWER = bytes.fromhex("488d443705 c3")  # lea rax, [rdi + rsi + 5]; ret


@pytest.fixture
def session() -> Iterator[Session]:
    small = SelfPatching.of("mmu.write_cr3")
    image = small.build(body=(PRINT, 0, SPIN), functions={"answer": ANSWER})
    backends = load_backends().backends
    with Session(Kernel(image), chain(backends["native"], backends), memory=32 << 20, vcpus=2) as made:
        yield made


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def at(session: Session, out: io.StringIO) -> dict[str, Any]:
    return Commands(session, out).names


def test_every_name_is_told_of(at: dict[str, Any]) -> None:
    methods = {name: each for name, each in at.items() if name not in {"session", "vcpus"}}
    assert methods.keys() >= {
        "call",
        "hook",
        "switch",
        "read",
        "disassemble",
        "where",
        "run_to",
        "step",
        "save",
        "dump",
    }
    assert all(each.__doc__ for each in methods.values())


def test_a_guest_runs_and_is_seen(at: dict[str, Any], session: Session, out: io.StringIO) -> None:
    assert at["where"]().startswith("vcpu 0 at start_kernel+0x0")
    assert at["step"]().startswith("start_kernel+0x5 (0x1000005)")
    assert at["run_to"]("alternative_instructions") is session.machine.vcpus[0]
    assert at["caller"](session.machine.vcpus[0]).startswith("start_kernel+")
    assert at["run"](max_ns=100_000).reason == "timeout"
    assert out.getvalue() == "O\n"


def test_what_was_shown_before_is_not_shown_again(session: Session) -> None:
    out = io.StringIO()
    session.run(max_ns=100_000)
    Commands(session, out, len(session.platform.console)).run(max_ns=10)
    assert not out.getvalue()


def test_ctrl_c_stops_the_guest_and_not_its_handlers(at: dict[str, Any]) -> None:
    before = signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    stop = at["run"](max_seconds=60)
    timer.join()
    assert stop.reason == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    assert at["run"](max_ns=1000).reason == "timeout"


def test_memory_is_read_by_symbol_and_address(at: dict[str, Any]) -> None:
    assert at["read"]("answer", 6) == at["read"](at["session"].guest.symbols["answer"], 6) == ANSWER
    assert at["symbol"](at["session"].guest.symbols["answer"] + 2) == "answer+0x2"


def test_functions_and_ops_are_called(at: dict[str, Any]) -> None:
    at["run"](max_ns=100_000)
    assert at["call"]("answer", 30, 7) == 42
    assert at["call"](at["session"].guest.symbols["answer"], 1, 2) == 8


def test_hooks_are_put_in_and_out(at: dict[str, Any]) -> None:
    seen: list[int] = []
    at["hook"]("write_cr3", lambda cr3: seen.append(cr3))  # noqa: PLW0108 - arguments go by name
    at["run"](max_ns=1_000_000)
    assert len(seen) == 1
    at["unhook"]()
    assert not at["session"].hooks.standing


def test_instructions_are_shown(at: dict[str, Any], out: io.StringIO) -> None:
    at["disassemble"]("answer", 2)
    lines = out.getvalue().splitlines()
    assert [line.split()[1] for line in lines] == ["answer", "answer+0x5"]
    assert lines[1].endswith("ret")
    at["disassemble"](count=1)
    assert "start_kernel" in out.getvalue()


def test_sessions_are_saved(at: dict[str, Any], tmp_path: Path) -> None:
    at["run_to"]("alternative_instructions")
    at["save"](tmp_path / "saved")
    with Session.load(tmp_path / "saved", guest=at["session"].guest) as loaded:
        assert loaded.machine.vcpus[0].rip == at["vcpus"][0].rip


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("read", ("nowhere",), "no symbol 'nowhere'"),
        ("read", (0xFFFF_8000_0000_0000, 4), "no memory there"),
        ("read", ("answer", "task_struct"), "no type information"),
        ("disassemble", (0xFFFF_8000_0000_0000,), "no memory there"),
        ("run_to", ("nowhere",), "nowhere"),
        ("call", ("nowhere",), "no symbol"),
        ("op", ("nowhere",), "nowhere"),
        ("hook", ("nowhere", print), "nowhere"),
        ("switch", ("write_cr3", "nowhere"), "nowhere"),
        ("dump", ("core",), "_text"),
    ],
)
def test_what_cannot_be_is_told(at: dict[str, Any], name: str, arguments: tuple[Any, ...], told: str) -> None:
    with pytest.raises(PvopsError, match=told):
        at[name](*arguments)


def test_a_vcpu_that_is_not_there_is_told(at: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no vCPU 2 of 2"):
        at["step"](vcpu=2)
