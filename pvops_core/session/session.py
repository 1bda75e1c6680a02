"""A machine, a guest and a backend, assembled and ready to run.

What a boot alone does not need, hooks and calls among it, is imported when it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from pvops_core.backends import chain
from pvops_core.backends.blame import blamed, making
from pvops_core.closing import Closing
from pvops_core.errors import MachineError, UsageError, unknown
from pvops_core.guest import GuestText, find_symbol
from pvops_core.guest.points import Points
from pvops_core.guest.space import KernelSpace
from pvops_core.guest.stacks.linux import LinuxReturns
from pvops_core.guest.stacks.returns import user_mode_of
from pvops_core.guest.stacks.tasks import find_tasks
from pvops_core.guests import BuiltinGuest, Kernel, Report, builtin_guest
from pvops_core.guests.builtin.stacks import returns_of
from pvops_core.machine import Machine, Stop, Vcpu
from pvops_core.machine.run.watchdog import run_within, where
from pvops_core.ops import LAYOUTS
from pvops_core.patching.poke import Poker
from pvops_core.session.halting import Halting
from pvops_core.session.hosting import hosted
from pvops_core.session.places import when_at
from pvops_core.session.platformchecks import check_built, check_made
from pvops_core.session.processors import Processors
from pvops_core.switchboard.kernel.modulesites import ModuleSites
from pvops_core.switchboard.kernel.slots import SlotWatch
from pvops_core.switchboard.kernel.table import OpTable, by_symbols, find_running_table, why_unknown
from pvops_core.x86 import PAGE_SHIFT

if TYPE_CHECKING:
    from pvops_core.backends import Backend, Platform
    from pvops_core.backends.keyboard import Keyboard
    from pvops_core.guest import Guest
    from pvops_core.guest.types.structs import Structures
    from pvops_core.ops import Layout
    from pvops_core.session.calls import Calls
    from pvops_core.session.findings import Dumped
    from pvops_core.switchboard import Ops, Switch, Switchboard
    from pvops_core.switchboard.kernel.ophooks import OpHooks


class SessionSettings(TypedDict, total=False):
    """Keyword arguments of a session, as :class:`Session` explains them."""

    vcpus: int
    seed: int
    memory: int
    options: Mapping[str, str]
    count_instructions: bool
    until: str
    stop_at: str
    keyboard: Keyboard
    tool_frames: int
    resumed: bool


class Session(Closing):
    """One guest on one backend. A context manager; closing it frees the machine.

    Args:
        guest: what to run.
        backends: the backend in force, its base, its base's base.
        vcpus: how many virtual CPUs; 1 unless given.
        seed: decides everything that is not decided otherwise; 0 unless given.
        memory: guest memory in bytes, rounded down to whole pages; the guest's usual amount unless given.
        options: the platform's settings, name to text.
        count_instructions: count executed instructions exactly, at some cost; off unless given.
        until: end the run, for the reason "until", when this has been printed on the console.
        stop_at: end the run, for the reason "until", when a vCPU comes to this place, as for :meth:`run_to`.
        keyboard: what is typed at the console, before the run and while it goes on; nothing unless given.
        tool_frames: page frames that the machine has besides, of which the guest does not know, such as those for
            payloads of live patches; none unless given.
        resumed: it goes on from a file next, and takes its memory from there: loaders need not bring their files.

    Attributes:
        guest: what runs.
        machine: the machine.
        platform: who answers its traps.
        text: the guest's image as it is in memory.
        poker: the one writer of its text.
        processors: which of the machine's vCPUs the guest has started.

    Raises:
        UsageError: the backend cannot host this guest, or not on this kind of machine, or a setting is wrong.
        MachineError: the guest does not fit into the machine.
        ImageError: the backend cannot boot this image.
        PluginError: the backend's ops do not fit their specifications.
    """

    machine: Machine
    platform: Platform
    text: GuestText
    poker: Poker
    processors: Processors
    switchboard: Switchboard
    points: Points
    table: OpTable | None
    slots: SlotWatch | None
    modules: ModuleSites | None = None
    _halting: Halting | None = None

    def __init__(self, guest: Guest, backends: tuple[Backend, ...], **settings: Unpack[SessionSettings]) -> None:
        if strange := sorted(settings.keys() - SessionSettings.__annotations__.keys()):
            raise TypeError(f"Session takes no {strange[0]!r}; the guest has its command line")
        self.guest = guest
        self.options = settings.get("options", {})
        self._backends = backends
        platform, kind = hosted(guest.boot_protocol, guest.kinds, backends)
        memory = settings.get("memory", guest.default_memory) & ~0xFFF
        values = platform.settings_class.read(self.options, memory=memory)
        self.tool_frames = settings.get("tool_frames", 0)
        self.machine = Machine(
            kind,
            memory=platform.machine_memory(memory) + (self.tool_frames << PAGE_SHIFT),
            vcpus=settings.get("vcpus", 1),
            seed=settings.get("seed", 0),
            count_instructions=settings.get("count_instructions", False),
            slice_blocks=guest.slice_blocks,
        )
        self.machine.memory.replaced = settings.get("resumed", False)
        try:
            self._source = next((link.source for link in backends if link.platform is not None), None)
            with making(self._source, f"making {platform.__qualname__}"):
                self.platform = platform(self.machine, guest, values)
            check_made(self.platform, self._source)
            self.platform.until = settings.get("until", "").encode()
            self.platform.keyboard = settings.get("keyboard") or self.platform.keyboard
            self.machine.attach(self.platform)
            self.text = GuestText(self.machine, guest, self.platform.machine_address)
            self.poker = Poker(self.machine, self.text.machine_address)
            self.processors = Processors(self.machine)
            self._equip(backends)
            if settings.get("stop_at"):
                self.end_at(settings["stop_at"])
        except BaseException:
            self.machine.close()
            raise

    @classmethod
    def of_builtin(
        cls,
        layout: str,
        backend: str,
        *,
        backends: Mapping[str, Backend],
        cmdline: str = "",
        **settings: Unpack[SessionSettings],
    ) -> Session:
        """The built-in guest of a layout on a backend, by its name among ``backends``; the rest as for the class."""
        if backend not in backends:
            raise unknown("backend", backend, sorted(backends))
        return cls(builtin_guest(layout, cmdline), chain(backends[backend], backends), **settings)

    def _equip(self, backends: tuple[Backend, ...]) -> None:
        """Load the guest, with what is served of it or looked at in it from its first instruction on."""
        if isinstance(self.guest, BuiltinGuest):
            from pvops_core.session.builtin import make_switchboard  # noqa: PLC0415

            self.slots = None
            self.table = OpTable(
                self.guest.image, self.text, self.layout, self.guest.sites, by_symbols(self.guest.symbols)
            )
            self.poker.returns = returns_of(self.guest, self.machine, self.platform, self.read)
            self.switchboard = make_switchboard(self, self.guest, backends)
            self.platform.features = self.switchboard.features()
            self._build()
            self.switchboard.install()
            return
        self._build()
        self.machine.watch(self.platform.read_keyboard)
        self.poker.returns = self.returns
        self.points = Points(self.machine, self.guest.symbols)
        self._halting = Halting(self.machine, self.points, self.guest.symbols)
        self.table = find_running_table(self.guest.image, self.text)
        self.slots = None
        if self.table is not None:
            self.slots = SlotWatch(self.machine, self.text, self.table)
            self.modules = ModuleSites(
                self.guest.image, self.machine, self.text, self.space, self.table, lambda: self.structures
            )

    def _build(self) -> None:
        with making(self._source, f"{type(self.platform).__qualname__}.build"):
            self.platform.build()
        if not self.machine.memory.replaced:
            check_built(self.platform, self._source)

    # Who runs ----------------------------------------------------------------------------------------------------

    @property
    def builtin(self) -> BuiltinGuest:
        """The guest, which is a built-in one.

        Raises:
            UsageError: it is not.
        """
        if not isinstance(self.guest, BuiltinGuest):
            raise UsageError(f"{self.guest.image.path} is not the built-in guest")
        return self.guest

    @property
    def kernel(self) -> Kernel:
        """The guest, which is a kernel's image.

        Raises:
            UsageError: it is not.
        """
        if not isinstance(self.guest, Kernel):
            raise UsageError(f"{self.guest.image.path} is no kernel that was given by its image")
        return self.guest

    @property
    def layout(self) -> Layout:
        """The layout of the built-in guest's ops."""
        return LAYOUTS[self.builtin.layout]

    # Running -----------------------------------------------------------------------------------------------------

    def run(self, *, max_ns: int | None = None, max_seconds: float | None = None, step: Collection[Vcpu] = ()) -> Stop:
        """Run the guest until it powers off, crashes or is stopped.

        Args:
            max_ns: virtual nanoseconds after which it is stopped, if any; a hook that has begun is finished first.
            max_seconds: seconds of wall time after which it is stopped, if any. Such a run cannot be repeated
                exactly, and its end says where each vCPU was.
            step: it is stopped, for the reason "stepped", when one of these has executed one instruction in its turn.

        Raises:
            MachineError: the guest did what the machine cannot do.
            PluginError: a hook or the platform failed.
        """
        with blamed(self._source, type(self.platform).__qualname__):
            symbol_at = self.guest.image.symbol_at
            stop = run_within(self.machine, symbol_at, max_ns=max_ns, max_seconds=max_seconds, step=step)
        return stop if self._halting is None else self._halting.judge(stop)

    def run_to(self, place: str, *, max_ns: int | None = None, max_seconds: float | None = None) -> Vcpu:
        """Run the kernel until a vCPU is about to execute a function, at least one instruction from here on.

        Args:
            place: the name of one of :data:`~pvops_core.guest.points.POINTS`, which are met once, or a place as of
                :mod:`pvops_core.guest.places`: a symbol, an address, a virtual time.
            max_ns: as for :meth:`run`.
            max_seconds: as for :meth:`run`.

        Returns:
            The vCPU that stands there; the first at a time.

        Raises:
            UsageError: the kernel has no such place, or has met the point or the time before.
            MachineError: the run ended before it came there.
        """
        arrived: list[Vcpu] = []
        forget = self.end_at(place, arrived.append)
        try:
            stop = self.run(max_ns=max_ns, max_seconds=max_seconds)
        finally:
            forget()
        if not arrived:
            raise MachineError(f"the kernel did not come to {place}: {stop.reason} {stop.detail}".rstrip())
        return arrived[0]

    def once_at(self, place: str, action: Callable[[], None]) -> None:
        """Call ``action`` when a vCPU first comes to a place, as for :meth:`run_to`, with every vCPU stopped.

        Raises:
            UsageError: the guest has no such place, or has met the point or the time before.
        """
        forget: list[Callable[[], None]] = []

        def arrived(vcpu: Vcpu | None) -> None:
            if vcpu is None:  # at a time nobody runs
                act()
            else:
                self.machine.defer(act)

        def act() -> None:
            if forget:
                forget.pop()()
                action()

        forget.append(when_at(self.machine, self.guest, lambda: self.points, place, arrived))

    def end_at(self, place: str, arrived: Callable[[Vcpu], None] = lambda _vcpu: None) -> Callable[[], None]:
        """End runs, for the reason "until", when a vCPU comes to a place, as for :meth:`run_to`; gives what ends that.

        Args:
            place: the place.
            arrived: told who has come there; of a virtual time the first vCPU.

        Raises:
            UsageError: the guest has no such place, or has met the point or the time before.
        """

        def stop(vcpu: Vcpu | None) -> None:
            arrived(vcpu or self.machine.vcpus[0])
            who = f"vcpu {vcpu.index}" if vcpu else "virtual time"
            self.machine.stop("until", f"{who} came to {place}")

        return when_at(self.machine, self.guest, lambda: self.points, place, stop)

    @cached_property
    def calls(self) -> Calls:
        """Makes calls of the guest's code from outside."""
        from pvops_core.session.calls import Calls  # noqa: PLC0415

        machine, image = self.machine, self.guest.image
        find = partial(find_symbol, image)
        if self.table is None:
            return Calls(machine, image.symbol_at, find)
        return Calls(machine, image.symbol_at, find, self.table.layout, self.table.target)

    @property
    def known_table(self) -> OpTable:
        """The guest's table of ops.

        Raises:
            UsageError: none is known in it; what its sites say why.
        """
        if self.table is None:
            image = self.guest.image
            raise UsageError(f"{image.path}: no table of ops is known in it: {why_unknown(image, self.text)}")
        return self.table

    @property
    def ops(self) -> Ops:
        """Its ops and who implements them; SwitchError if it is a kernel whose table of ops is not known here."""
        return self.switchboard if isinstance(self.guest, BuiltinGuest) else self.hooks

    @property
    def switches(self) -> Sequence[Switch]:
        """The switches of ops so far, without putting anybody in front of a kernel's ops."""
        if self.slots is None or self.made_hooks is not None:
            return self.ops.history if self.table is not None else ()
        return self.slots.history

    @cached_property
    def space(self) -> KernelSpace:
        """A kernel's own address space."""
        return KernelSpace(self.machine, self.text, self.guest.symbols)

    @cached_property
    def structures(self) -> Structures:
        """A kernel's memory by its own types; StructureError if it has none that can be read."""
        from pvops_core.guest.types.structs import Structures  # noqa: PLC0415

        return Structures(self.guest.image, self.space, len(self.machine.vcpus))

    def struct(self, type: str, address: int | str) -> Any:  # noqa: ANN401 - what C has there
        """A structure in a kernel's memory, as for :meth:`~pvops_core.guest.types.structs.Structures.struct`."""
        return self.structures.struct(type, address)

    def per_cpu(self, symbol: str, cpu: int = 0, type: str = "") -> Any:  # noqa: ANN401 - what C has there
        """A per-CPU variable, as for :meth:`~pvops_core.guest.types.structs.Structures.per_cpu`."""
        return self.structures.per_cpu(symbol, cpu, type)

    @cached_property
    def returns(self) -> LinuxReturns:
        """Who returns where, in a kernel; its type information is read when that is first asked."""
        in_user_mode, image = user_mode_of(self.platform), self.guest.image
        find = partial(find_tasks, image, self.machine, self.space)
        return LinuxReturns(self.machine, image, in_user_mode=in_user_mode, find_tasks=find, word=self.space.word)

    @cached_property
    def hooks(self) -> OpHooks:
        """Python hooks in a kernel's own ops; SwitchError if it has no table that is known here."""
        from pvops_core.session.hooks import make_hooks  # noqa: PLC0415

        return make_hooks(self, self._backends)

    @property
    def made_hooks(self) -> OpHooks | None:
        """The same where somebody has asked for them: making them breaks into the kernel, which asking must not."""
        return self.__dict__.get("hooks")

    def text_without_hooks(self) -> dict[int, bytes]:
        """A kernel's text as it would be without hooks: bytes by address, where that differs from what is there now."""
        return {} if self.made_hooks is None else self.made_hooks.text_without()

    @property
    def last_hook_fault(self) -> str:
        """The last fault that a hook ran into and the guest was given, with the author's frames; empty for none."""
        if isinstance(self.guest, BuiltinGuest):
            return self.switchboard.faults.last_fault
        return "" if self.made_hooks is None else self.made_hooks.faults.last_fault

    def whereabouts(self) -> str:
        """What ``where`` says, under its old name."""
        import_module("pvops_core.api1.names").warn("Session.whereabouts", "Session.where", 3)
        return self.where()

    def where(self) -> str:
        """Where each vCPU is, by symbol: "vcpu 0 at default_idle+0x13 (0xffffffff…), waiting"."""
        return where(self.machine, self.guest.image.symbol_at)

    def report(self) -> Report:
        """What the built-in guest wrote into its report; MachineError if that is damaged."""
        return Report.read(self.builtin.symbols, self.text.read)

    def read(self, va: int, length: int) -> bytes:
        """Bytes of the guest's image, as they are in memory now."""
        return self.text.read(va, length)

    def text_sha256(self) -> str:
        """Hash of the guest's text as it is now; ImageError if its image does not say where that is."""
        return self.text.sha256()

    def save(self, path: Path | str, place: str = "", vcpu: int = 0) -> None:
        """Write the session, between two runs, to a file from which it can go on in another process.

        Args:
            path: of the file, which is replaced as a whole.
            place: where the guest stands, for people.
            vcpu: index of the vCPU that has come there.

        Raises:
            MachineError: a handler is running, or the file cannot be written.
            SavedError: a keeper's state cannot be saved.
        """
        import_module("pvops_core.session.saving").save(self, self._backends, Path(path), place, vcpu)

    def dump(self, path: Path | str) -> Dumped:
        """Write the kernel's memory, between two runs, to a file that debuggers such as drgn and crash open.

        It is what kdump leaves of a crashed kernel: an ELF core of guest-physical memory with the kernel's VMCOREINFO
        and an NT_PRSTATUS note a CPU. On Xen memory is pseudo-physical and page tables hold its frame numbers, as in a
        domain that was saved. The guest sees nothing of it.

        Args:
            path: of the file, which is replaced as a whole; pages that are zero are holes in it.

        Returns:
            What there is to say of it.

        Raises:
            UsageError: the guest is no kernel of 64 bits, or its image has no symbols that say where its page tables
                are.
            MachineError: a handler is running, or the file cannot be written.
        """
        made: Dumped = import_module("pvops_core.session.dumping").dump(self, Path(path))
        return made

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        guest: Guest | None = None,
        backends: Mapping[str, Backend] | None = None,
        prepare: Callable[[Session], None] | None = None,
        **settings: Unpack[SessionSettings],
    ) -> Session:
        """A session that goes on from a file that :meth:`save` has written, perhaps in another process.

        What the file says decides how it is made: nothing of the file is executed, and no plugin is loaded for it.

        Args:
            path: of the file.
            guest: what runs in it; by default its kernel and ramdisk are read from where they were.
            backends: all that are loaded; those installed unless given.
            prepare: asks the session, before the states are put into it, for what the saved one had and a file does
                not hold: hooks by the same names in the same order, live patching. Nothing unless given.
            **settings: ``until``, ``stop_at`` and ``keyboard``, as for the class.

        Raises:
            SavedError: the file is damaged, or is of another guest, backend, machine, source or engine than there is.
            PvopsError: as for the class.
        """
        loading = import_module("pvops_core.session.saving")
        session: Session = loading.made_for(cls, Path(path), guest, backends, prepare, settings)
        return session

    def close(self) -> None:
        """Free the machine."""
        self.machine.close()
