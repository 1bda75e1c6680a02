"""The other hypercalls: pointers that are none, numbers out of range, other domains, floods and loops without end."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor.abi import PAGE_SHIFT, EvtchnOp, Hypercall, MemoryOp, SchedOp, VcpuOp
from pvops_xen.testing.rules.case import Collection, Crash, Errno, Gives

if TYPE_CHECKING:
    from pvops_xen.testing.guests import GuestOutcome, SmallGuest

_XENS: Final = {64: 0xFFFF_8200_0000_1000, 32: 0xF580_1000}
_UNMAPPED: Final = 0x2000_0000
case = CASES = Collection()


def _evtchn(g: SmallGuest, command: int, form: str, *values: int) -> int:
    return g.call(Hypercall.EVENT_CHANNEL_OP, command, g.put("data", struct.pack(form, *values).ljust(24, b"\0")))


# --- numbers and pointers --------------------------------------------------------------------------------------------


case("a hypercall that does not exist", "do_ni_hypercall", Errno("ENOSYS"))(lambda g: g.call(55))


for _number, _version in ((Hypercall.PLATFORM_OP, 0x0300_0001), (Hypercall.SYSCTL, 0x15), (Hypercall.DOMCTL, 0x15)):
    case(f"{_number.name.lower()} of a domain without rights", "xsm", Errno("EPERM"))(
        lambda g, number=_number, version=_version: g.call(  # type: ignore[misc]
            number, g.put("data", struct.pack("<IIH", 2, version, 0))
        )
    )


case("an array of updates in Xen's part", "guest_handle_okay", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.MMU_UPDATE, _XENS[g.bits], 1, 0, 0x7FF0)
)
case("an array of updates that is not mapped", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.MMU_UPDATE, _UNMAPPED, 1, 0, 0x7FF0)
)
case("an array of updates at an address that is not canonical", "guest_handle_okay", Errno("EFAULT"), 64)(
    lambda g: g.call(Hypercall.MMU_UPDATE, 1 << 47, 1, 0, 0x7FF0)
)


@case("two thousand million updates", "guest_handle_okay, preemption", Errno("EFAULT"))
def _(g: SmallGuest) -> int:
    g.put("data", struct.pack("<QQ", g.l1e(0), g.entry(0)) * 100)
    return g.call(Hypercall.MMU_UPDATE, g.va("data"), 0x7FFF_FFFF, 0, 0x7FF0)


@case("two thousand million extended operations", "guest_handle_okay, preemption", Errno("EFAULT"))
def _(g: SmallGuest) -> int:
    g.put("data", g.words(6, 0, 0) * 100)
    return g.call(Hypercall.MMUEXT_OP, g.va("data"), 0x7FFF_FFFF, 0, 0x7FF0)


case("an answer into Xen's part", "copy_to_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.XEN_VERSION, 1, _XENS[g.bits])
)


@case("an answer into a page table", "copy_to_guest", Errno("EFAULT"))
def _(g: SmallGuest) -> int:
    g.update_va_mapping(g.va(0), g.table(1) << PAGE_SHIFT | 1)
    return g.call(Hypercall.XEN_VERSION, 1, g.va(0))


@case("an answer across the end of mapped memory", "copy_to_guest", Errno("EFAULT"))
def _(g: SmallGuest) -> int:
    g.update_va_mapping(g.va(1), 0)
    return g.call(Hypercall.XEN_VERSION, 3, g.va(1) - 8)


@case("a multicall in a multicall", "do_multicall: in_multicall", Gives("-EINVAL in its entry", -22))
def _(g: SmallGuest) -> int:
    inner = g.put(0, g.words(17, 0, *[0] * 6))
    entry = g.put("data", g.words(Hypercall.MULTICALL, 0, inner, 1, *[0] * 4))
    g.call(Hypercall.MULTICALL, entry, 1)
    result = int.from_bytes(g.cpu.read_virtual(entry + g.word, g.word), "little")
    return result - (1 << g.bits)


case("a multicall in Xen's part", "do_multicall: guest_handle_okay", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.MULTICALL, _XENS[g.bits], 1)
)
case("a multicall of four thousand million entries", "do_multicall: preemption", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.MULTICALL, g.va("data"), 0xFFFF_FFFF)
)
case("console output from Xen's part", "copy_from_guest", Errno("EFAULT"))(
    lambda g: g.call(Hypercall.CONSOLE_IO, 0, 16, _XENS[g.bits])
)
case("an unknown vm_assist", "do_vm_assist", Errno("EINVAL"))(lambda g: g.call(Hypercall.VM_ASSIST, 0, 31))


# --- memory ----------------------------------------------------------------------------------------------------------


def _reservation(g: SmallGuest, command: int, frame: int, order: int = 0, domid: int = 0x7FF0) -> int:
    extents = g.put("data", g.words(frame), 256)
    data = g.words(extents, 1) + struct.pack("<IIH", order, 0, domid)
    return g.call(Hypercall.MEMORY_OP, command, g.put("data", data.ljust(32, b"\0")))


case("give a frame of Xen's away", "guest_remove_page", Gives("0 frames done", 0))(
    lambda g: _reservation(g, MemoryOp.DECREASE_RESERVATION, g.hv.m2p >> PAGE_SHIFT)
)
case("give a frame beyond memory away", "guest_remove_page", Gives("0 frames done", 0))(
    lambda g: _reservation(g, MemoryOp.DECREASE_RESERVATION, 1 << 30)
)
case("give another domain's memory away", "rcu_lock_domain_by_any_id", Gives("0 frames done", 0))(
    lambda g: _reservation(g, MemoryOp.DECREASE_RESERVATION, 5, domid=77)
)
case("more memory than the domain may have", "assign_pages: max_pages", Gives("0 frames done", 0))(
    lambda g: _reservation(g, MemoryOp.INCREASE_RESERVATION, 0)
)
case("memory of order 60", "memory_op: MAX_ORDER", Gives("0 frames done", 0))(
    lambda g: _reservation(g, MemoryOp.POPULATE_PHYSMAP, 0, order=60)
)
case("an unknown memory_op", "arch_memory_op", Errno("ENOSYS"))(lambda g: g.call(Hypercall.MEMORY_OP, 55, g.va("data")))


# --- vCPUs and time --------------------------------------------------------------------------------------------------


case("a vCPU that the domain has not", "do_vcpu_op", Errno("ENOENT"))(
    lambda g: g.call(Hypercall.VCPU_OP, VcpuOp.UP, 7, 0)
)


@case("vcpu_info in a frame of Xen's", "map_vcpu_info", Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    data = struct.pack("<QII", g.hv.m2p >> PAGE_SHIFT, 0, 0)
    return g.call(Hypercall.VCPU_OP, VcpuOp.REGISTER_VCPU_INFO, 0, g.put("data", data))


@case("vcpu_info in a page table", "map_vcpu_info", Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    data = struct.pack("<QII", g.table(1), 0, 0)
    return g.call(Hypercall.VCPU_OP, VcpuOp.REGISTER_VCPU_INFO, 0, g.put("data", data))


@case("vcpu_info across the end of a page", "map_vcpu_info", Errno("ENXIO"))
def _(g: SmallGuest) -> int:
    data = struct.pack("<QII", g.mfn(0), 4040, 0)
    return g.call(Hypercall.VCPU_OP, VcpuOp.REGISTER_VCPU_INFO, 0, g.put("data", data))


case("a periodic timer of a microsecond", "VCPUOP_set_periodic_timer", Errno("EINVAL"))(
    lambda g: g.call(Hypercall.VCPU_OP, VcpuOp.SET_PERIODIC_TIMER, 0, g.put("data", struct.pack("<Q", 1000)))
)


@case("a shutdown for an unknown reason", "SCHEDOP_shutdown", Crash("shut down for reason 77"))
def _(g: SmallGuest) -> GuestOutcome:
    reason = g.put("data", struct.pack("<I", 77))
    name = "rsi" if g.bits == 64 else "ecx"
    first = "rdi" if g.bits == 64 else "ebx"
    trap = "syscall" if g.bits == 64 else "int 0x82"
    return g.execute(f"mov eax, 29\n mov {first}, 2\n mov {name}, {reason:#x}\n {trap}")


@case("a poll of 129 ports", "SCHEDOP_poll", Errno("EINVAL"))
def _(g: SmallGuest) -> int:
    data = g.words(g.va(0)) + struct.pack("<IQ" if g.bits == 32 else "<I4xQ", 129, 0)
    return g.call(Hypercall.SCHED_OP, SchedOp.POLL, g.put("data", data))


# --- events ----------------------------------------------------------------------------------------------------------


case("an event on a port that is closed", "evtchn_send", Errno("EINVAL"))(
    lambda g: _evtchn(g, EvtchnOp.SEND, "<I", 900)
)
case("an event on a port out of range", "evtchn_send: port_is_valid", Errno("EINVAL"))(
    lambda g: _evtchn(g, EvtchnOp.SEND, "<I", 1 << 30)
)
case("an interrupt line", "evtchn_bind_pirq", Errno("EPERM"))(lambda g: _evtchn(g, EvtchnOp.BIND_PIRQ, "<II", 1, 0))
case("a virtual interrupt that does not exist", "evtchn_bind_virq", Errno("EINVAL"))(
    lambda g: _evtchn(g, EvtchnOp.BIND_VIRQ, "<II", 99, 0)
)
case("a channel to an unknown domain", "rcu_lock_domain_by_any_id", Errno("ESRCH"))(
    lambda g: _evtchn(g, EvtchnOp.BIND_INTERDOMAIN, "<H2xI", 77, 1)
)


@case("more channels than there are ports", "get_free_port", Errno("ENOSPC"))
def _(g: SmallGuest) -> int:
    count = 0
    while count <= g.hv.abi.channels:
        error = _evtchn(g, EvtchnOp.BIND_IPI, "<I", 0)
        if error:
            return error
        count += 1
    return 0


@case(
    "a flood of events",
    "the domain's own time",
    Gives("it runs until the time allowed is over, which names where"),
)
def _(g: SmallGuest) -> bool:
    _evtchn(g, EvtchnOp.BIND_IPI, "<I", 0)
    port = struct.unpack("<I", g.cpu.read_virtual(g.va("data") + 4, 4))[0]
    send = g.put("data", struct.pack("<I", port))
    names = ("rdi", "rsi", "syscall") if g.bits == 64 else ("ebx", "ecx", "int 0x82")
    code = f"1: mov eax, 32\n mov {names[0]}, 4\n mov {names[1]}, {send:#x}\n {names[2]}\n jmp 1b"
    return _named_timeout(g.execute(code, max_ns=2_000_000))


case("a loop for ever", "the domain's own time", Gives("it runs until the time allowed is over, which names where"))(
    lambda g: _named_timeout(g.execute("1: jmp 1b", max_ns=2_000_000))
)


def _named_timeout(outcome: GuestOutcome) -> bool:
    return outcome.kind == "timeout" and "vcpu 0 at" in outcome.detail


# --- grant tables: calls of one request, which compat_grant_table_op takes for arrays --------------------------------

_GRANTS = "compat_grant_table_op"
_SETUP_TABLE, _QUERY_SIZE, _GET_STATUS_FRAMES = 2, 6, 9
for _name, _command in (("grant frames", _SETUP_TABLE), ("grant status frames", _GET_STATUS_FRAMES)):
    case(f"no request for {_name}", "do_grant_table_op", Errno("EINVAL"), 64)(
        lambda g, command=_command: g.call(Hypercall.GRANT_TABLE_OP, command, g.va("data"), 0)  # type: ignore[misc]
    )
    case(f"no request for {_name} with PAE", _GRANTS, Gives("0", 0), 32)(
        lambda g, command=_command: g.call(Hypercall.GRANT_TABLE_OP, command, g.va("data"), 0)  # type: ignore[misc]
    )
    case(f"two requests for {_name}", _GRANTS, Errno("EINVAL"))(
        lambda g, command=_command: g.call(Hypercall.GRANT_TABLE_OP, command, g.va("data"), 2)  # type: ignore[misc]
    )
    case(f"two requests for {_name} in Xen's part, with PAE", _GRANTS, Errno("EFAULT"), 32)(
        lambda g, command=_command: g.call(Hypercall.GRANT_TABLE_OP, command, g.hv.abi.m2p_start, 2)  # type: ignore[misc]
    )
case("no request for the size of the grant table", "gnttab_query_size", Errno("EINVAL"))(
    lambda g: g.call(Hypercall.GRANT_TABLE_OP, _QUERY_SIZE, g.va("data"), 0)
)


@case("grant status frames for a list in Xen's part", "gnttab_get_status_frames: guest_handle_okay", Errno("EFAULT"))
def _(g: SmallGuest) -> int:
    head = (1).to_bytes(4, "little") + (0x7FF0).to_bytes(4, "little")
    request = g.put("data", head + g.hv.abi.m2p_start.to_bytes(8, "little"))
    return g.call(Hypercall.GRANT_TABLE_OP, _GET_STATUS_FRAMES, request, 1)
