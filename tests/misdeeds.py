# ruff: noqa: T201, ARG001, ARG002 - what hooks are told is of no interest here, and printing is the deed
"""Backends whose hook does what hooks should not, one a kind of misdeed, and the same as hooks of a kernel's op."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from pvops_core.backends import Environment
    from pvops_core.machine import Vcpu


NOWHERE = 0x7777_0000_1234
"""Not mapped in any guest of the tests."""


class Speechless(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Unspeakable(Exception):  # noqa: N818
    """It cannot say what it is in any way."""

    def __str__(self) -> str:
        raise SystemExit(1)

    __repr__ = __str__


class Odd(BaseException):
    """None of Python's own kinds."""


def deeper(depth: int) -> int:
    return deeper(depth + 1)


def value(cpu: Vcpu) -> None:
    raise ValueError("no such index")


def leaves(cpu: Vcpu) -> None:
    sys.exit(3)


def interrupts(cpu: Vcpu) -> None:
    raise KeyboardInterrupt


def generator(cpu: Vcpu) -> None:
    raise GeneratorExit


def speechless(cpu: Vcpu) -> None:
    raise Speechless


def recursion(cpu: Vcpu) -> None:
    deeper(0)


def speechless_twice(cpu: Vcpu) -> None:
    raise Unspeakable


def base(cpu: Vcpu) -> None:
    raise Odd("very")


def memory(cpu: Vcpu) -> None:
    raise MemoryError


def surrogate(cpu: Vcpu) -> None:
    raise ValueError("half \udc80 a pair")


def outside(cpu: Vcpu) -> None:
    cpu.machine.memory.read(1 << 40, 8)


def fault(cpu: Vcpu) -> None:
    cpu.u64(NOWHERE)


def ends(cpu: Vcpu) -> None:
    os._exit(9)


def aborts(cpu: Vcpu) -> None:
    os.abort()


def kills(cpu: Vcpu) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ENDS: dict[str, tuple[Callable[[Vcpu], None], str]] = {
    "ends": (ends, "ended without an answer (exit status 9)"),
    "aborts": (aborts, "was killed by SIGABRT"),
    "kills": (kills, "was killed by SIGKILL"),
}
"""Those after which there is no process: the deed, and how it ended."""


ERRORS: dict[str, tuple[Callable[[Vcpu], None], str]] = {
    "value": (value, "ValueError: no such index"),
    "leaves": (leaves, "SystemExit: 3"),
    "interrupts": (interrupts, "KeyboardInterrupt"),
    "generator": (generator, "GeneratorExit"),
    "speechless": (speechless, "Speechless: (its __str__ raised RuntimeError, so that it cannot say what it is)"),
    "speechless_twice": (
        speechless_twice,
        "Unspeakable: (its __str__ raised SystemExit, so that it cannot say what it is)",
    ),
    "base": (base, "Odd: very"),
    "memory": (memory, "MemoryError"),
    "recursion": (recursion, "RecursionError: maximum recursion depth exceeded"),
    "surrogate": (surrogate, r"ValueError: half \udc80 a pair"),
}
"""By name of the backend: the deed, and what is said of it."""


def talks(cpu: Vcpu) -> None:
    print("printed", "by a hook")
    print("complained", file=sys.stderr)
    logging.getLogger("author").info("logged %d", 7)
    warnings.warn("warned", stacklevel=1)
    os.write(1, b"past sys.stdout\n")
    print("no end of line", end="")


def _backend(name: str, deed: Callable[[Vcpu], None]) -> Backend:
    class Ops:
        def __init__(self, env: Environment) -> None:
            self.env = env

        @hookimpl
        def load_tr_desc(self, cpu: Vcpu) -> None:
            deed(cpu)
            cpu.insn.ltr(0x40 if cpu.machine.kind.bits == 64 else 0x80)

    return Backend(name=name, api=API, description=name, base="native", ops=Ops)


def _late(name: str, deed: Callable[[Vcpu], None]) -> Backend:
    """The guest's boot does not call that op: a test does."""

    class Ops:
        def __init__(self, env: Environment) -> None:
            self.env = env

        @hookimpl
        def wbinvd(self, cpu: Vcpu) -> None:
            deed(cpu)

    return Backend(name=name, api=API, description=name, base="native", ops=Ops)


def _under_a_kernel(name: str, deed: Callable[[Vcpu], None]) -> Backend:
    """Its hook serves an op of a real kernel's."""

    class Ops:
        def __init__(self, env: Environment) -> None:
            self.env = env

        @hookimpl
        def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
            deed(cpu)
            cpu.insn.mov_to_cr(3, cpu.cr3)  # the small kernel gives no root

    return Backend(name=name, api=API, description=name, base="native", ops=Ops)


for _name, (_deed, _said) in ERRORS.items():
    globals()[_name] = _backend(_name, _deed)
    globals()[f"kernel_{_name}"] = _under_a_kernel(f"kernel_{_name}", _deed)
    globals()[f"late_{_name}"] = _late(f"late_{_name}", _deed)
late_fault = _late("late_fault", fault)
late_talks = _late("late_talks", talks)
outside_ = _backend("outside_", outside)
fault_, talks_ = _backend("fault_", fault), _backend("talks_", talks)
kernel_fault = _under_a_kernel("kernel_fault", fault)
kernel_talks = _under_a_kernel("kernel_talks", talks)


class Unmade:
    def __init__(self, env: Environment) -> None:
        raise LookupError("nothing to begin with")


unmade = Backend(name="unmade", api=API, description="unmade", base="native", ops=Unmade)


def _unmade(name: str, deed: Callable[[Any], None]) -> Backend:
    """It does the deed when its ops are made; it serves an op of a kernel's as well."""

    class Ops:
        def __init__(self, env: Environment) -> None:
            deed(env)

        @hookimpl
        def write_cr3(self, cpu: Vcpu, cr3: int) -> None:
            cpu.insn.mov_to_cr(3, cr3)

    return Backend(name=name, api=API, description=name, base="native", ops=Ops)


for _name, (_deed, _said) in ERRORS.items():
    globals()[f"unmade_{_name}"] = _unmade(f"unmade_{_name}", _deed)


def hook(deed: Callable[[Vcpu], Any]) -> Callable[[Vcpu], None]:
    """The deed as a function for ``boot --hook``."""

    def misdeed(cpu: Vcpu) -> None:
        deed(cpu)

    return misdeed


for _name, (_deed, _said) in ERRORS.items():
    globals()[f"hook_{_name}"] = hook(_deed)
hook_fault, hook_talks, hook_outside = hook(fault), hook(talks), hook(outside)
for _name, (_deed, _said) in ENDS.items():
    globals()[f"{_name}_"] = _backend(f"{_name}_", _deed)
    globals()[f"late_{_name}"] = _late(f"late_{_name}", _deed)
    globals()[f"kernel_{_name}"] = _under_a_kernel(f"kernel_{_name}", _deed)
    globals()[f"unmade_{_name}"] = _unmade(f"unmade_{_name}", _deed)
    globals()[f"hook_{_name}"] = hook(_deed)
