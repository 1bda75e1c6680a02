"""Hypercalls that tell a guest about Xen and change small things: version, assists, console, I/O rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_xen.hypervisor import access, policy
from pvops_xen.hypervisor.abi import (
    E2BIG,
    EINVAL,
    ENOSYS,
    EPERM,
    HYPERVISOR_VIRT_START64,
    PAGE_SIZE,
    VersionOp,
    VmAssist,
)
from pvops_xen.public import VERSION

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_xen.hypervisor.core import Hypervisor

_FEATURE_WORD: Final = VERSION["xen_feature_info"].part("submap_idx")
_FEATURES: Final = VERSION["xen_feature_info"].part("submap")
_NUMBERS: Final = {
    VersionOp.VERSION: policy.XEN_MAJOR << 16 | policy.XEN_MINOR,
    VersionOp.BUILD_ID: -EPERM,
}
_TEXTS: Final[dict[int, bytes]] = {
    VersionOp.EXTRAVERSION: policy.EXTRAVERSION.ljust(16, b"\0"),
    VersionOp.COMPILE_INFO: b"pvops".ljust(144, b"\0"),
    VersionOp.CAPABILITIES: policy.CAPABILITIES.ljust(1024, b"\0"),
    VersionOp.CHANGESET: policy.CHANGESET.ljust(64, b"\0"),
    VersionOp.COMMANDLINE: b"<denied>\0",  # how Xen was started is not for every domain
}


def xen_version(hv: Hypervisor, cpu: Vcpu, command: int, argument: int) -> int:
    """``xen_version(cmd, arg)``; also what a guest calls to have pending upcalls delivered."""
    if command in _NUMBERS:
        return _NUMBERS[VersionOp(command)]
    if command == VersionOp.PAGESIZE:
        # It takes no argument, and refuses one.
        return -EINVAL if argument else PAGE_SIZE
    if command == VersionOp.GET_FEATURES:
        return _get_features(hv, cpu, argument)
    if command == VersionOp.PLATFORM_PARAMETERS:
        # Where Xen's part begins is what a guest sizes its own space by.
        access.write_word(hv, cpu, argument, HYPERVISOR_VIRT_START64 if hv.abi.bits == 64 else hv.abi.m2p_start)
        return 0
    text = policy.uuid_of(hv.domain.domid) if command == VersionOp.GUEST_HANDLE else _TEXTS.get(command)
    if text is None:
        return -ENOSYS
    # ``copy_to_guest_offset``: a bad pointer is -EFAULT, whatever the text.
    access.write(hv, cpu, argument, text)
    return 0


def _get_features(hv: Hypervisor, cpu: Vcpu, argument: int) -> int:
    """xen_feature_info: the guest names a word of features (there is one) and gets it."""
    (word,) = access.fetch(hv, cpu, argument, _FEATURE_WORD)
    # One word of features is all that there is (XENFEAT_NR_SUBMAPS).
    if word:
        return -EINVAL
    features = policy.FEATURES
    # Set only for a guest that asked for pae_extended_cr3 in vm_assist.
    if hv.domain.assisted(VmAssist.PAE_EXTENDED_CR3):
        features |= policy.FEATURE_PAE_EXTENDED_CR3
    access.store(hv, cpu, argument, _FEATURES, features)
    return 0


_VALID_ASSISTS: Final = {
    32: frozenset(kind for kind in VmAssist if kind != VmAssist.M2P_STRICT),
    64: frozenset(VmAssist),
}


def vm_assist(hv: Hypervisor, cpu: Vcpu, command: int, kind: int) -> int:
    """``vm_assist(cmd, type)``: enable (0) or disable (1)."""
    del cpu
    if kind not in _VALID_ASSISTS[hv.abi.bits]:
        return -EINVAL
    if command not in {0, 1}:
        return -ENOSYS
    if command == 0:
        hv.domain.assists |= 1 << kind
    else:
        hv.domain.assists &= ~(1 << kind)
    return 0


def console_io(hv: Hypervisor, cpu: Vcpu, command: int, count: int, buffer: int) -> int:
    """``console_io(cmd, count, buffer)``: write (0), or read (1) what of the typed does not fit into the ring.

    What comes before a part that cannot be read is written.
    """
    if command == 1:
        if count >> 31:
            return -E2BIG
        # What the guest took is taken: the ring gets what it did not.
        access.write(hv, cpu, buffer, typed := hv.console.typed[:count])
        hv.console.read(len(typed))
        return len(typed)
    if command != 0:
        return -ENOSYS
    while count:
        # A page at a time: a buffer that ends in memory the guest has not got is shown up to there.
        size = min(count, PAGE_SIZE - buffer % PAGE_SIZE)
        hv.console.write(access.read(hv, cpu, buffer, size))
        buffer, count = buffer + size, count - size
    return 0
