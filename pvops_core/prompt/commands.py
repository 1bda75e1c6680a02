"""What a prompt on a session has names for."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from pvops_core.errors import UsageError
from pvops_core.guest import find_symbol
from pvops_core.machine import GuestFault, Stop
from pvops_core.patching.code.disasm import listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pvops_core.machine import Vcpu
    from pvops_core.session import Session
    from pvops_core.session.findings import Dumped
    from pvops_core.switchboard.kernel.ophook import OpHook

_LONGEST_INSTRUCTION = 15  # bytes (Intel SDM volume 2, 2.3.11)


class Commands:
    """The names, each a method that ``help`` tells of.

    Args:
        session: the session, which does not run.
        out: what the guest prints, and what commands show, goes there.
        told: bytes of the guest's console that were shown before.
    """

    def __init__(self, session: Session, out: TextIO, told: int = 0) -> None:
        self.session = session
        self._out = out
        self._told = told

    @property
    def names(self) -> dict[str, Any]:
        """What the prompt's name space begins with."""
        methods = {name: getattr(self, name) for name in vars(Commands) if not name.startswith("_") and name != "names"}
        return {"session": self.session, "vcpus": self.session.machine.vcpus, **methods}

    # Running -----------------------------------------------------------------------------------------------------

    def run(self, *, max_ns: int | None = None, max_seconds: float | None = None) -> Stop:
        """Let the guest run until it ends, ``max_ns`` of virtual or ``max_seconds`` of wall time, or Ctrl-C.

        Gives why it stopped: its ``reason`` and ``detail``.
        """
        with self._at_console():
            return self.session.run(max_ns=max_ns, max_seconds=max_seconds)

    def run_to(self, place: str, *, max_seconds: float | None = None) -> Vcpu:
        """Let the guest run until a vCPU comes to a place, or Ctrl-C; gives that vCPU.

        ``place`` is a function, SYMBOL+OFFSET, "0xADDRESS", a virtual time such as "20ms", or a named point of a
        kernel's boot: start_kernel, alternatives, paravirt, patched, free_initmem, init, power-off.
        """
        with self._at_console():
            return self.session.run_to(place, max_seconds=max_seconds)

    def step(self, count: int = 1, vcpu: int = 0) -> str:
        """Execute so many instructions of a vCPU, with the traps that they cause; gives where it stands then."""
        cpu = self._vcpu(vcpu)
        with self._at_console():
            for _ in range(count):
                self.session.machine.step(cpu)
        return f"{self.symbol(cpu.rip)} ({cpu.rip:#x})"

    def where(self) -> str:
        """Where each vCPU is, by symbol."""
        return self.session.where()

    # Looking -----------------------------------------------------------------------------------------------------

    def read(self, place: int | str, what: int | str = 64) -> Any:  # noqa: ANN401 - what C has there
        """The guest's memory: bytes, or a value by the kernel's own types (BTF).

        ``read("linux_banner", 40)`` is 40 bytes at a symbol or an address; ``read("init_task", "task_struct")`` a
        structure whose members are attributes, and which ``print`` shows whole.
        """
        if isinstance(what, str):
            return self.session.struct(what, place)
        address = self._address(place)
        try:
            return self._memory(address, what)
        except GuestFault as fault:
            raise UsageError(f"{address:#x}: the guest has no memory there") from fault

    def symbol(self, address: int) -> str:
        """The symbol that an address lies at: "xen_write_cr3+0x10", or the address in hex where there is none."""
        found = self.session.guest.image.symbol_at(address)
        if found is None:
            return f"{address:#x}"
        return f"{found[0]}+{found[1]:#x}" if found[1] else found[0]

    def caller(self, cpu: Vcpu) -> str:
        """Who called the function whose first instruction a vCPU stands at; in a hook, who called the op."""
        return self.symbol(cpu.word(cpu.rsp))

    def disassemble(self, place: int | str | None = None, count: int = 10) -> None:
        """Show instructions as they are in memory now, from a symbol or address on, or where vCPU 0 stands."""
        address = self._vcpu(0).rip if place is None else self._address(place)
        wanted = count * _LONGEST_INSTRUCTION
        code = b""
        while len(code) < wanted:  # as far as memory goes
            try:
                code += self._memory(address + len(code), min(64, wanted - len(code)))
            except GuestFault:
                break
        if not code:
            raise UsageError(f"{address:#x}: the guest has no memory there")
        bits = self.session.machine.kind.bits
        for at, bytes_, text in listing(code, address, bits)[:count]:
            self._out.write(f"{at:#x}  {self.symbol(at):<32} {bytes_.hex():<20} {text}\n")

    # Doing -------------------------------------------------------------------------------------------------------

    def call(self, function: str | int, *arguments: int, vcpu: int = 0) -> int:
        """Call a C function of the guest's, by symbol or address, with numbers as arguments; gives its result.

        It is called on the stack that the vCPU stands on, with interrupts off, and nobody else runs meanwhile. What it
        changes stays; the vCPU's registers are as before.
        """
        calls, cpu = self.session.calls, self._vcpu(vcpu)
        callee = calls.function(function, *arguments)
        with calls.quiet(cpu):
            return calls.plain(cpu, callee)

    def op(self, name: str, *arguments: int, vcpu: int = 0) -> int:
        """Call what an op's slot holds now, by the op's name, as ``call`` calls a function."""
        calls, cpu = self.session.calls, self._vcpu(vcpu)
        callee = calls.op(name, *arguments)
        with calls.quiet(cpu):
            return calls.plain(cpu, callee)

    def hook(self, op: str, function: Callable[..., int | None]) -> OpHook:
        """Put a Python function in front of a kernel's op: ``hook("write_cr3", f)`` calls ``f(cpu, cr3)``.

        None goes on to the kernel's own function; a number is the op's result in its place. ``unhook`` takes it out.
        """
        return self.session.hooks.install(op, function)

    def unhook(self, *hooks: OpHook) -> None:
        """Take hooks out: those given, or all that stand."""
        self.session.hooks.remove(*(hooks or tuple(self.session.hooks.standing)))

    def switch(self, op: str, implementation: Any) -> None:  # noqa: ANN401 - a name or a function
        """Give an op another implementation: a backend's ("xen"), "kernel", "kernel:SYMBOL", or a function."""
        self.session.ops.switch(op, implementation, by="prompt")

    def save(self, path: Path | str) -> None:
        """Write the session to a file from which ``pvops shell --load`` and ``pvops boot --load`` go on."""
        self.session.save(path)

    def dump(self, path: Path | str) -> Dumped:
        """Write a 64-bit kernel's memory to a vmcore, which drgn and crash open."""
        return self.session.dump(path)

    def _vcpu(self, index: int) -> Vcpu:
        vcpus = self.session.machine.vcpus
        if not 0 <= index < len(vcpus):
            raise UsageError(f"there is no vCPU {index} of {len(vcpus)}")
        return vcpus[index]

    def _address(self, place: int | str) -> int:
        return int(place) if not isinstance(place, str) else find_symbol(self.session.guest.image, place)

    def _memory(self, address: int, length: int) -> bytes:
        """By the kernel's own tables, or by those of the first vCPU that has it."""
        return self.session.space.read(address, length)

    @contextmanager
    def _at_console(self) -> Iterator[None]:
        """While the guest runs, show what it prints, and let Ctrl-C stop it between two of its instructions."""
        machine = self.session.machine
        main = threading.current_thread() is threading.main_thread()
        # Never by an exception: that would come in the midst of a handler, and leave the guest half done.
        before = main and signal.signal(signal.SIGINT, lambda *_: machine.stop("interrupted", "Ctrl-C; run() goes on"))
        machine.watch(self._show)
        try:
            yield
        finally:
            machine.unwatch(self._show)
            self._show()
            if main:
                signal.signal(signal.SIGINT, before)

    def _show(self) -> None:
        console = self.session.platform.console
        if len(console) > self._told:
            self._out.write(console[self._told :].decode(errors="replace").replace("\r\n", "\n"))
            self._out.flush()
            self._told = len(console)
