"""The processor: privileged instructions, registers, ports, in the kernel and in a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pvops_xen.hypervisor.abi import PAGE_SHIFT, Hypercall
from pvops_xen.testing.guests import GUARDED, SYSCALL
from pvops_xen.testing.rules.case import Collection, Done, Errno, Gives, Trap

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

DB, UD, GP = 1, 6, 13
case = CASES = Collection()
_EMULATED = "emul-priv-op.c: validate"

for _code, *_widths in (
    ("hlt",),
    ("invlpg [eax]", 32),
    ("invlpg [rax]", 64),
    ("lgdt [edi]", 32),
    ("lidt [rdi]", 64),
    ("lldt ax",),
    ("lmsw ax",),
    ("invd",),
    ("swapgs", 64),
    ("sysretq", 64),
    ("mov cr8, rax", 64),
):
    case(f"{_code} in the kernel", _EMULATED, Trap(GP), *_widths)(
        lambda g, code=_code: g.execute(code, **({"rdi": g.va("data")} if g.bits == 64 else {"edi": g.va("data")}))  # type: ignore[misc]
    )

for _code in (
    "hlt",
    "mov eax, cr0",
    "clts",
    "rdmsr",
    "wrmsr",
    "wbinvd",
    "mov eax, dr7",
    "in al, 0x71",
    "out 0x70, al",
):
    case(f"{_code} in a process", "guest_kernel_mode, iopl_ok", Trap(GP))(
        lambda g, code=_code: g.execute_as_user(  # type: ignore[misc]
            code.replace("eax, cr0", "rax, cr0").replace("eax, dr7", "rax, dr7") if g.bits == 64 else code
        )
    )

for _who in ("the kernel", "a process"):
    case(f"rdpmc in {_who}", "CR4.PCE is clear", Trap(GP))(
        lambda g, user=_who != "the kernel": (g.execute_as_user if user else g.execute)("xor ecx, ecx\n rdpmc")  # type: ignore[misc]
    )
    case(f"xsetbv in {_who}", "the processor has no XSAVE", Trap(UD))(
        lambda g, user=_who != "the kernel": (g.execute_as_user if user else g.execute)("xor ecx, ecx\n xsetbv")  # type: ignore[misc]
    )


def _with_tsd(g: SmallGuest, code: str) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov {name}, cr4\n or {name}, 4\n mov cr4, {name}\n {code}")


case("rdtsc in the kernel with CR4.TSD", "emul-priv-op.c: validate", Done())(lambda g: _with_tsd(g, "rdtsc"))
case("rdtscp in the kernel with CR4.TSD", "x86_emulate: vcpu_must_have(rdtscp)", Trap(UD))(
    lambda g: _with_tsd(g, "rdtscp")
)

for _code in ("vmcall", "vmmcall", "rsm", "ud2", "xgetbv", "monitor", "mwait"):
    case(f"{_code} in the kernel", "no emulation", Trap(UD))(lambda g, code=_code: g.execute(code))  # type: ignore[misc]


@case("turn paging off", "write_cr: CR0", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov {name}, cr0\n btr {name}, 31\n mov cr0, {name}")


@case("turn write protection off", "write_cr: CR0", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov {name}, cr0\n btr {name}, 16\n mov cr0, {name}")


@case("set PSE, PGE and SMEP in CR4", "pv_fixup_guest_cr4", Gives("the bits are dropped"))
def _(g: SmallGuest) -> bool:
    name = "rax" if g.bits == 64 else "eax"
    got = g.execute(f"mov {name}, cr4\n or {name}, 0x100090\n mov cr4, {name}\n mov {name}, cr4")
    return got.kind == "done" and not got.registers[name] & 0x100090


@case("a CR3 that is no root", "write_cr: CR3", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov cr3, {name}", **{name: g.mfn(0) << PAGE_SHIFT})


@case("a CR3 that is Xen's", "write_cr: CR3", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov cr3, {name}", **{name: g.hv.m2p})


for _msr, _what in (
    (0xC000_0082, "LSTAR"),
    (0x174, "SYSENTER_CS"),
    (0xC000_0081, "STAR"),
    (0x1D9, "DEBUGCTL"),
    (0x12345, "no MSR at all"),
):
    case(f"write {_what}", "write_msr", Trap(GP))(
        lambda g, msr=_msr: g.execute(f"mov ecx, {msr:#x}\n mov eax, 8\n xor edx, edx\n wrmsr")  # type: ignore[misc]
    )


case("read an MSR that does not exist", "read_msr", Trap(GP))(lambda g: g.execute("mov ecx, 0x12345\n rdmsr"))
case("a GS base that is not canonical", "write_msr: is_canonical_address", Trap(GP), 64)(
    lambda g: g.execute("mov ecx, 0xc0000101\n xor eax, eax\n mov edx, 0x8000\n wrmsr")
)
case("a breakpoint in Xen by set_debugreg", "breakpoint_addr_ok", Errno("EPERM"), 64)(
    lambda g: g.call(Hypercall.SET_DEBUGREG, 0, g.hv.abi.m2p_start)
)
case("general detect by set_debugreg", "set_debugreg: DR_GENERAL_DETECT", Errno("EPERM"))(
    lambda g: g.call(Hypercall.SET_DEBUGREG, 7, 1 << 13)
)
case("a breakpoint on a port without CR4.DE", "set_debugreg: DR_IO", Errno("EPERM"))(
    lambda g: g.call(Hypercall.SET_DEBUGREG, 7, 2 << 16 | 1)
)
case("reserved bits of DR7", "set_debugreg", Errno("EINVAL"), 64)(lambda g: g.call(Hypercall.SET_DEBUGREG, 7, 1 << 32))
case("a debug register that does not exist", "set_debugreg", Errno("ENODEV"))(
    lambda g: g.call(Hypercall.SET_DEBUGREG, 8, 0)
)


@case("general detect by mov", "write_dr", Trap(GP))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov {name}, 0x2400\n mov dr7, {name}")


case("a hypercall by a process", "lstar_enter: switch_to_kernel", Trap(SYSCALL), 64)(
    lambda g: g.execute_as_user("mov eax, 17\n syscall")
)
case("a hypercall by a process", "HYPERCALL_VECTOR: DPL 1", Trap(GP, 0x82 << 3 | 2), 32)(
    lambda g: g.execute_as_user("mov eax, 17\n int 0x82")
)
case("syscall in a 32-bit kernel", "Intel's processors know it in 64-bit code only", Trap(UD), 32)(
    lambda g: g.execute("mov eax, 17\n syscall")
)
case("a hypercall by a 32-bit process with syscall", "Intel's processors know it in 64-bit code only", Trap(UD), 32)(
    lambda g: g.execute_as_user("mov eax, 17\n syscall")
)
case("the 32-bit hypercall interrupt in a 64-bit kernel", "HYPERCALL_VECTOR: DPL 1", Trap(GP, 0x82 << 3 | 2), 64)(
    lambda g: g.execute("mov eax, 17\n int 0x82")
)
case("a software interrupt without a gate", "permit_softint", Trap(GP, 0x20 << 3 | 2))(lambda g: g.execute("int 0x20"))
case("a software interrupt to a gate of the kernel's by a process", "permit_softint", Trap(GP, GUARDED << 3 | 2))(
    lambda g: g.execute_as_user(f"int {GUARDED}")
)
case("an exception's vector by a software interrupt in a process", "permit_softint", Trap(GP, 14 << 3 | 2))(
    lambda g: g.execute_as_user("int 14")
)


@case("set the interrupt flag by popf", "IF is Xen's", Gives("ignored: interrupts of the machine stay on"))
def _(g: SmallGuest) -> bool:
    code = "push 0\n popf\n pushf\n pop " + ("rax" if g.bits == 64 else "eax")
    got = g.execute(code)
    return got.kind == "done" and bool(g.cpu.rflags & 1 << 9)


for _code, _length in (("rdmsr", 2), ("mov {a}, cr0", 3), ("clts", 2), (".byte 0x66, 0x0f, 0x32", 3), ("ds rdmsr", 3)):
    case(f"a single step over {_code.format(a='eax')}", "pv_emulate_privileged_op: retire.singlestep", Trap(DB))(
        lambda g, code=_code: _stepped(g, code)  # type: ignore[misc]
    )


def _stepped(g: SmallGuest, code: str) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov ecx, 0x17\n push 0x102\n popf\n {code.format(a=name)}\n ud2")


case("a single step over the forced-emulation prefix and cpuid", "pv_emul_instruction_done", Trap(DB))(
    lambda g: g.execute("push 0x102\n popf\n .byte 0x0f, 0x0b, 0x78, 0x65, 0x6e\n cpuid\n ud2")
)


@case("mov to DR4 with CR4.DE", "x86emul_write_dr: -ENODEV", Trap(UD))
def _(g: SmallGuest) -> GuestOutcome:
    name = "rax" if g.bits == 64 else "eax"
    return g.execute(f"mov {name}, 8\n mov cr4, {name}\n mov {name}, dr4")


case("a segment base that is not canonical", "do_set_segment_base", Errno("EINVAL"), 64)(
    lambda g: g.call(Hypercall.SET_SEGMENT_BASE, 0, 1 << 47)
)
case("a segment base that there is none of", "do_set_segment_base", Errno("EINVAL"), 64)(
    lambda g: g.call(Hypercall.SET_SEGMENT_BASE, 9, 0)
)
case("a segment base of a 32-bit guest", "do_set_segment_base", Errno("ENOSYS"), 32)(
    lambda g: g.call(Hypercall.SET_SEGMENT_BASE, 0, 0)
)
