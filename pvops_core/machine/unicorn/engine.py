"""The one door to Unicorn: an engine per vCPU, called through the library's own C interface.

Everything that runs more than a few times a second goes straight to the shared library by ctypes, with arrays that
were prepared once: the binding's register and memory calls cost several times as much. The library is opened
as a ``PyDLL``, whose calls keep the interpreter lock: a register read takes less time than giving the lock away.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from unicorn import unicorn_const as const
from unicorn import x86_const
from unicorn.unicorn_py3 import unicorn as binding

from pvops_core.errors import HostError, HostMemoryError, MachineError
from pvops_core.machine.unicorn import controlarea
from pvops_core.machine.unicorn.controlarea import without_leaving
from pvops_core.machine.unicorn.libc import require_room
from pvops_core.machine.unicorn.movablehook import MovableHook

UNICORN_VERSION = importlib.metadata.version("unicorn")
NAME = f"Unicorn {UNICORN_VERSION}"

# Room for translated code. The library's default reserves 1 GiB of address space for every engine.
_CODE_BUFFER = 256 << 20
_BESIDE = 32 << 20  # what it allocates besides, roughly
Words = ctypes.Array[ctypes.c_int64]

ERROR_NAMES: dict[int, str] = {
    value: name.removeprefix("UC_ERR_").lower().replace("_", " ")
    for name, value in vars(const).items()
    if name.startswith("UC_ERR_")
}
REGISTER_IDS: dict[str, int] = {
    name.removeprefix("UC_X86_REG_").lower(): value
    for name, value in vars(x86_const).items()
    if name.startswith("UC_X86_REG_")
}
_MSR = REGISTER_IDS["msr"]
BUS_ERRORS: dict[int, str] = {
    const.UC_ERR_READ_UNMAPPED: "read outside physical memory",
    const.UC_ERR_WRITE_UNMAPPED: "write outside physical memory",
    const.UC_ERR_FETCH_UNMAPPED: "fetch outside physical memory",
    const.UC_ERR_FETCH_PROT: "fetch from a device's registers",  # all else is mapped to be executed
}
"""What a guest can do on the bus that no engine goes on from."""

_library = ctypes.PyDLL(binding.uclib._name)  # noqa: SLF001 - the path of the library that the binding chose
_pointer = ctypes.c_void_p
_library.uc_open.argtypes = (ctypes.c_uint, ctypes.c_uint, _pointer)
_library.uc_close.argtypes = (_pointer,)
_library.uc_emu_start.argtypes = (_pointer, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_size_t)
_library.uc_emu_stop.argtypes = (_pointer,)
_library.uc_mem_map_ptr.argtypes = (_pointer, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32, _pointer)
_library.uc_mmio_map.argtypes = (_pointer, ctypes.c_uint64, ctypes.c_size_t, _pointer, _pointer, _pointer, _pointer)
_library.uc_hook_del.argtypes = (_pointer, ctypes.c_size_t)
_library.uc_context_alloc.argtypes = (_pointer, _pointer)
_library.uc_context_free.argtypes = (_pointer,)
_library.uc_context_size.argtypes = (_pointer,)
_library.uc_context_size.restype = ctypes.c_size_t
# What is called all the time declares no types: converting an address takes longer than reading a register. Pointers
# must be given as objects of ctypes, prepared once; a plain int is a C int.
_reg_read, _reg_write = _library.uc_reg_read, _library.uc_reg_write
_save, _restore = _library.uc_context_save, _library.uc_context_restore
reg_read_batch, reg_write_batch = _library.uc_reg_read_batch, _library.uc_reg_write_batch


def read_batch_with_msrs(*arguments: object) -> int:
    """``reg_read_batch`` where one of the registers is an MSR."""
    return without_leaving(reg_read_batch, *arguments)


# Of its own, with fixed arguments, to be cheap enough to be measured.
_remove_code = _library["uc_ctl"]
_remove_code.argtypes = (_pointer, ctypes.c_uint, ctypes.c_uint64, ctypes.c_uint64)
# Two arguments follow: UC_CTL has their count from bit 26 on, and that they are written at bit 30 (unicorn.h)
REMOVE_CODE: int = const.UC_CTL_TB_REMOVE_CACHE | 2 << 26 | const.UC_CTL_IO_WRITE << 30
"""``uc_ctl``'s word for dropping translated code: begin and end follow."""

CODE_CALLBACK = ctypes.PYFUNCTYPE(None, _pointer, ctypes.c_uint64, ctypes.c_uint32, _pointer)
INTR_CALLBACK = ctypes.PYFUNCTYPE(None, _pointer, ctypes.c_uint32, _pointer)
INVALID_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_bool, _pointer, _pointer)
SYSCALL_CALLBACK = ctypes.PYFUNCTYPE(None, _pointer, _pointer)
CPUID_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_int, _pointer, _pointer)
LOOK_CALLBACK = ctypes.PYFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
CHECK_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_uint32)
MEMORY_CALLBACK = ctypes.PYFUNCTYPE(
    None, _pointer, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int64, _pointer
)
IN_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_uint32, _pointer, ctypes.c_uint32, ctypes.c_int, _pointer)
LOAD_CALLBACK = ctypes.PYFUNCTYPE(ctypes.c_uint64, _pointer, ctypes.c_uint64, ctypes.c_uint, _pointer)
STORE_CALLBACK = ctypes.PYFUNCTYPE(None, _pointer, ctypes.c_uint64, ctypes.c_uint, ctypes.c_uint64, _pointer)
OUT_CALLBACK = ctypes.PYFUNCTYPE(None, _pointer, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32, _pointer)

HOOK_CODE: int = const.UC_HOOK_CODE
HOOK_BLOCK: int = const.UC_HOOK_BLOCK
HOOK_INTR: int = const.UC_HOOK_INTR
HOOK_INVALID: int = const.UC_HOOK_INSN_INVALID
HOOK_MEM_READ: int = const.UC_HOOK_MEM_READ
HOOK_MEM_WRITE: int = const.UC_HOOK_MEM_WRITE
MEM_WRITE: int = const.UC_MEM_WRITE
HOOK_TRANSLATED: int = const.UC_HOOK_EDGE_GENERATED
PROT_EXEC: int = const.UC_PROT_EXEC
_HOOK_INSN: int = const.UC_HOOK_INSN
INSN_IN: int = x86_const.UC_X86_INS_IN
INSN_OUT: int = x86_const.UC_X86_INS_OUT
INSN_SYSCALL: int = x86_const.UC_X86_INS_SYSCALL
INSN_SYSENTER: int = x86_const.UC_X86_INS_SYSENTER
INSN_CPUID: int = x86_const.UC_X86_INS_CPUID
INSN_RDTSC: int = x86_const.UC_X86_INS_RDTSC
INSN_RDTSCP: int = x86_const.UC_X86_INS_RDTSCP


def unknown_build(why: str) -> HostError:
    """The error for a library whose inside is not where pvops looks for it."""
    return HostError(
        f"{NAME} on this host ({platform.machine()}) is not one that pvops knows: {why}. "
        "It knows the builds for x86_64 Linux that its distribution on PyPI has; no guest can run here"
    )


def function_address(name: str) -> int:
    """Address of one of the library's functions in this process, for native callbacks."""
    return ctypes.cast(getattr(_library, name), _pointer).value or 0


class MsrValue(ctypes.Structure):
    """``uc_x86_msr``."""

    _fields_ = (("number", ctypes.c_uint32), ("value", ctypes.c_uint64))


class TableRegister(ctypes.Structure):
    """``uc_x86_mmr``: GDTR, IDTR (base and limit only), LDTR and TR."""

    _fields_ = (
        ("selector", ctypes.c_uint16),
        ("base", ctypes.c_uint64),
        ("limit", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class Context:
    """A saved CPU context whose bytes can be seen and changed."""

    def __init__(self, engine: Engine) -> None:
        handle = ctypes.c_void_p()
        engine.check("context", _library.uc_context_alloc(engine.handle, ctypes.byref(handle)))
        self.pointer = handle
        self.address: int = handle.value or 0
        self.size: int = _library.uc_context_size(engine.handle)
        self.bytes = memoryview((ctypes.c_uint8 * self.size).from_address(self.address)).cast("B")

    def free(self) -> None:
        """Give the context back; its bytes must not be touched afterwards."""
        self.bytes.release()
        _library.uc_context_free(self.address)


class Engine:
    """One Unicorn instance: one vCPU."""

    def __init__(self, bits: int, memory: int, size: int) -> None:
        """Open an engine and map host memory into it.

        Args:
            bits: 32 or 64, the width of the guest's registers at start.
            memory: host address of guest-physical 0; must stay valid until ``close``.
            size: bytes of it, whole pages.
        """
        # Asked first, because the library ends the process where it gets no memory.
        require_room(_CODE_BUFFER + _BESIDE, "an engine")
        handle = ctypes.c_void_p()
        mode = const.UC_MODE_64 if bits == 64 else const.UC_MODE_32
        self.check("open", _library.uc_open(const.UC_ARCH_X86, mode, ctypes.byref(handle)))
        self.pointer = handle
        self.handle: int = handle.value or 0
        self.bits = bits
        self.closed = False
        self._callbacks: list[object] = []
        self._stepping = False
        self._stopping: set[int] = set()
        self.steps = False  # single ones, by a movable hook
        self._code_hooks: set[int] = set()
        self._no_stops: ctypes.c_uint8 | None = None
        self._context: Context | None = None
        self.between = False  # the library is started for its own sake: what it meets is not the guest's
        # One model for both widths: 32-bit guests need its PAE and NX, sysenter in 64-bit mode an Intel one, and
        # one without rdrand, whose numbers come from the host.
        self._control(const.UC_CTL_CPU_MODEL, 1, ctypes.c_int(x86_const.UC_CPU_X86_SANDYBRIDGE))
        self._control(const.UC_CTL_TCG_BUFFER_SIZE, 1, ctypes.c_uint32(_CODE_BUFFER))
        self._control(const.UC_CTL_UC_USE_EXITS, 1, ctypes.c_int(1))  # with none set: no stop address at all
        self.check("map", _library.uc_mem_map_ptr(self.handle, 0, size, const.UC_PROT_ALL, memory))
        control = (controlarea.ADDRESS, controlarea.SIZE, const.UC_PROT_READ, controlarea.HOST_ADDRESS)
        self.check("map", _library.uc_mem_map_ptr(self.handle, *control))
        self._value = ctypes.c_uint64()
        # Made once: a reference each time would cost as much as the read.
        self._place = ctypes.byref(self._value)
        self._msr = MsrValue(0, 0)
        self._msr_place = ctypes.byref(self._msr)

    def check(self, what: str, status: int) -> None:
        """Raise MachineError unless the library said OK; HostMemoryError where it got no memory."""
        if status:
            name = ERROR_NAMES.get(status, str(status))
            if status == const.UC_ERR_NOMEM:
                raise HostMemoryError.of(f"what an engine needs to {what}")
            raise MachineError(f"{NAME}: {what} failed: {name}")

    def _control(self, control: int, count: int, *arguments: object) -> None:
        # As UC_CTL packs it (unicorn.h): what, how many arguments, and that they are written
        word = control | count << 26 | const.UC_CTL_IO_WRITE << 30
        self.check("control", _library.uc_ctl(_pointer(self.handle), ctypes.c_uint32(word), *arguments))

    def close(self) -> None:
        """Free the engine; every other method is forbidden afterwards."""
        if not self.closed:
            self.closed = True
            self._no_stops = None
            if self._context is not None:
                self._context.free()
            # Contexts are the engine's and must go before it.
            _library.uc_close(self.handle)
            self._callbacks.clear()

    def start(self, rip: int) -> int:
        """Run from ``rip`` until something stops the engine; the library's status."""
        # Single-stepping costs every instruction a check, and the library turns that off only at its next start.
        if self._stepping:
            self._stepping = False
            self.choose_stops()
            self._end_stepping(rip)
        status: int = _library.uc_emu_start(self.handle, rip, 0, 0, 0)
        return status

    def step(self, rip: int) -> int:
        """Run exactly one instruction; the library's status."""
        # Code translated for full speed has no instruction counted, and is of no use for a step.
        if not self._stepping:
            self._stepping = True
            self.choose_stops()
            self.flush_code()  # blocks translated for full speed do not count instructions
        status: int = _library.uc_emu_start(self.handle, rip, 0, 0, 1)
        return status

    def _end_stepping(self, rip: int) -> None:
        """The library ends its counting of instructions when it is next started: here, where it executes nothing."""
        self.between = True
        with self._untouched():
            self._exit_at(rip)
            _library.uc_emu_start(self.handle, rip, 0, 0, 0)
            self._exit_at()
        self.between = False
        self.flush_code()

    def _exit_at(self, *addresses: int) -> None:
        places = (ctypes.c_uint64 * len(addresses))(*addresses)
        self._control(const.UC_CTL_UC_EXITS, 2, places, ctypes.c_size_t(len(addresses)))

    @contextmanager
    def _untouched(self) -> Iterator[None]:
        """Removing a hook, the library translates where it has been, as the CPU would now: a fault in that is undone.

        A vCPU in user mode, or in other page tables, cannot see them. Such a fault would be kept as an exception in
        progress, so that the guest's next one became a double fault, and the one after that nothing at all.
        """
        # Made when first needed: most vCPUs never have a hook removed.
        if self._context is None:
            self._context = Context(self)
        self.save(self._context)
        try:
            yield
        finally:
            self.restore(self._context)

    def stop(self) -> None:
        """End ``start``; only from inside a callback."""
        _library.uc_emu_stop(self.handle)

    def stop_between_blocks(self, switch: int) -> None:
        """From now on let ``stop`` take effect where a block begins, unless a hook needs it where it stands.

        Args:
            switch: where the library's structure has its flag for that (``exitrequest``).
        """
        self._no_stops = ctypes.c_uint8.from_address(self.handle + switch)
        self.choose_stops()

    @property
    def stops_within(self) -> bool:
        """Whether ``stop`` takes effect where it is asked for, and not where the next block begins."""
        return self._no_stops is None or not self._no_stops.value

    def stop_before(self, addresses: Sequence[int]) -> None:
        """End ``start`` before an instruction at one of these linear addresses; holds for code translated from now on.

        Costs nothing elsewhere. Unlike after ``hlt``, nothing but RIP tells what stopped the engine.
        """
        array = (ctypes.c_uint64 * len(addresses))(*addresses)
        self._control(const.UC_CTL_UC_EXITS, 2, array, ctypes.c_size_t(len(addresses)))

    def choose_stops(self) -> None:
        """Decide about code that is translated from now on."""
        # Read when code is translated, so that it holds for what is translated from now on.
        if self._no_stops is not None:
            self._no_stops.value = not (self._stepping or self._stopping or self.steps)

    def keep(self, callback: object) -> int:
        """The address of a ctypes function object, which lives as long as the engine does."""
        self._callbacks.append(callback)
        return ctypes.cast(callback, _pointer).value or 0  # type: ignore[arg-type]

    def hook(self, kind: int, callback: object, begin: int = 1, end: int = 0) -> int:
        """Add a hook whose callback is a ctypes function object; gives its handle."""
        self._callbacks.append(callback)
        return self._add_hook(kind, ctypes.cast(callback, _pointer), _pointer(0), begin, end)  # type: ignore[arg-type]

    def hook_code(self, callback: object, begin: int, end: int, *, stops: bool = True) -> int:
        """Add a hook before the instructions that start in [begin, end], and drop all translated code.

        Args:
            callback: a ctypes function object.
            begin: guest-virtual address.
            end: guest-virtual address of the last one.
            stops: it may stop the engine or move RIP, which is to take effect before the instruction. One that does not
                leaves all other code faster.

        Returns:
            Its handle, for ``unhook_code``.
        """
        hook = self.hook(HOOK_CODE, callback, begin, end)
        # A hook that may stop the engine needs the check in all code, which is why it is not the default.
        if stops:
            self._stop_within(hook)
        self.flush_code()
        return hook

    def hook_native_code(self, function: int, data: int) -> int:
        """As ``hook_code``, before every instruction, with machine code that may stop the engine."""
        hook = self.hook_native(HOOK_CODE, function, data)
        self._stop_within(hook)
        self.flush_code()
        return hook

    def _stop_within(self, hook: int) -> None:
        self._stopping.add(hook)
        self.choose_stops()

    def unhook_code(self, hook: int) -> None:
        """Remove a hook of ``hook_code``, and drop all translated code."""
        with self._untouched():
            # The library frees the hook's structure; blocks that call it must go with it.
            self.check("unhook", _library.uc_hook_del(self.handle, hook))
        self._stopping.discard(hook)
        self._code_hooks.discard(hook)
        self.choose_stops()
        self.flush_code()

    def map_device(self, address: int, size: int, load: object, store: object) -> None:
        """Have loads and stores of a physical range, whole pages, call ctypes function objects."""
        calls = (self.keep(load), self.keep(store))
        self.check("map device", _library.uc_mmio_map(self.handle, address, size, calls[0], None, calls[1], None))

    def hook_instruction(self, instruction: int, callback: object) -> int:
        """Add a hook on one instruction; gives its handle."""
        self._callbacks.append(callback)
        function = ctypes.cast(callback, _pointer)  # type: ignore[arg-type]
        return self._add_hook(_HOOK_INSN, function, _pointer(0), 1, 0, ctypes.c_int(instruction))

    def hook_native(self, kind: int, function: int, data: int, begin: int = 1, end: int = 0) -> int:
        """Add a hook that calls machine code at ``function`` with ``data`` as its last argument."""
        return self._add_hook(kind, _pointer(function), _pointer(data), begin, end)

    def hook_native_instruction(self, instruction: int, function: int, data: int) -> int:
        """Add a hook on one instruction that calls machine code."""
        return self._add_hook(_HOOK_INSN, _pointer(function), _pointer(data), 1, 0, ctypes.c_int(instruction))

    def _add_hook(
        self, kind: int, function: ctypes.c_void_p, data: ctypes.c_void_p, begin: int, end: int, *more: object
    ) -> int:
        hook = ctypes.c_size_t()
        bounds = (ctypes.c_uint64(begin), ctypes.c_uint64(end))
        status = _library.uc_hook_add(
            _pointer(self.handle), ctypes.byref(hook), ctypes.c_int(kind), function, data, *bounds, *more
        )
        self.check("hook", status)
        if kind == HOOK_CODE:
            self._code_hooks.add(hook.value)
        return hook.value

    @property
    def code_hooks(self) -> int:
        """How many hooks there are before instructions; each makes translation slower."""
        return len(self._code_hooks)

    @property
    def stepping(self) -> bool:
        """Whether it runs single instructions, which the library counts by a hook of its own."""
        return self._stepping

    def movable_code_hook(self, function: int) -> MovableHook:
        """A hook before instructions that calls machine code, and is not removed any more."""
        return MovableHook(lambda first, last, data: self.hook_native(HOOK_CODE, function, data, first, last))

    def unhook(self, hook: int) -> None:
        """Remove a hook."""
        with self._untouched():
            self.check("unhook", _library.uc_hook_del(self.handle, hook))
        self._code_hooks.discard(hook)

    @staticmethod
    def register_id(name: str) -> int:
        """Unicorn's number of a register."""
        return REGISTER_IDS[name]

    def read(self, register: int) -> int:
        """One register by Unicorn's number, for rare use."""
        # Unicorn writes as many bytes as the register has, and this is read as 64 bits.
        self._value.value = 0
        if status := _reg_read(self.pointer, register, self._place):
            self.check("register read", status)
        return self._value.value

    def write(self, register: int, value: int) -> None:
        """Set one register by Unicorn's number, for rare use."""
        self._value.value = value
        if status := _reg_write(self.pointer, register, self._place):
            self.check("register write", status)

    def read_wide(self, name: str, size: int) -> bytes:
        """One register of so many bytes."""
        place = ctypes.create_string_buffer(16)  # the library's longest, whatever is wanted
        self.check("register read", _reg_read(self.pointer, REGISTER_IDS[name], place))
        return place.raw[:size]

    def write_wide(self, name: str, data: bytes) -> None:
        """Set one register that is not of 64 bits."""
        self.check("register write", _reg_write(self.pointer, REGISTER_IDS[name], ctypes.create_string_buffer(data)))

    def read_msr(self, number: int) -> int:
        """A model-specific register as the engine keeps it; 0 for those it does not know."""
        if not controlarea.held(number):
            return 0
        msr = self._msr
        msr.number, msr.value = number, 0
        if status := without_leaving(_reg_read, self.pointer, _MSR, self._msr_place):
            self.check("rdmsr", status)
        value: int = msr.value
        return value

    def write_msr(self, number: int, value: int) -> None:
        """Set a model-specific register; those that the engine does not know are ignored by it."""
        if controlarea.held(number):
            self._msr.number, self._msr.value = number, value
            self.check("wrmsr", without_leaving(_reg_write, self.pointer, _MSR, self._msr_place))

    def read_table(self, name: str) -> TableRegister:
        """gdtr, idtr, ldtr or tr."""
        register = TableRegister()
        self.check(name, _reg_read(self.pointer, REGISTER_IDS[name], ctypes.byref(register)))
        return register

    def write_table(self, name: str, register: TableRegister) -> None:
        """Set gdtr, idtr, ldtr or tr with all hidden parts."""
        self.check(name, _reg_write(self.pointer, REGISTER_IDS[name], ctypes.byref(register)))

    def save(self, context: Context) -> None:
        """Copy the whole CPU state out."""
        if status := _save(self.pointer, context.pointer):
            self.check("context save", status)

    def restore(self, context: Context) -> None:
        """Copy the whole CPU state in."""
        if status := _restore(self.pointer, context.pointer):
            self.check("context restore", status)

    def remove_code(self, begin: int, end: int) -> None:
        """Drop translated code of [begin, end), within one page, addresses as the CPU translates them now."""
        status = _remove_code(self.handle, REMOVE_CODE, begin, end)
        if status:
            self.check("removal of code", status)

    def set_context_mode(self, mode: int) -> None:
        """What contexts hold: 1 the CPU, 2 memory, 3 both."""
        self._control(const.UC_CTL_CONTEXT_MODE, 1, ctypes.c_int(mode))

    def flush_code(self) -> None:
        """Drop all translated code."""
        self._control(const.UC_CTL_TB_FLUSH, 0)

    def flush_tlb(self) -> None:
        """Drop all cached translations of addresses."""
        self._control(const.UC_CTL_TLB_FLUSH, 0)
