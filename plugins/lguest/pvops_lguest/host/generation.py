"""Which generation of the ABI a guest speaks, told from its image.

Guest and host were built from one tree, so nothing asked. What tells is how the kernel's own struct lguest_data is
initialised, which register its first hypercall uses, and whether its bus looks for fields in device descriptors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from pvops_core.errors import ImageError
from pvops_lguest.host.abi import ABIS, DONE, RING_SIZE, Abi, abi_by_name, abi_of_data

if TYPE_CHECKING:
    from pvops_core.guest import Guest
    from pvops_core.images import KernelImage

LGUEST_DATA: Final = "lguest_data"
LGUEST_ENTRY: Final = "lguest_entry"
"""Where a kernel of subarch 1 begins (arch/x86/lguest/i386_head.S, from 2.6.24 on)."""

FIELD_FINDER: Final = "lg_find"
"""Of 2.6.24's drivers/lguest/lguest_device.c, which walks a descriptor's typed fields; later ones count."""

# Enough for two moves of five bytes and the trap behind them.
_ENTRY_BYTES: Final = 24
_MOV_EBX: Final = 0xBB


def choose_abi(guest: Guest, name: str) -> Abi:
    """The generation of a name, or what the image shows, or what the built-in guest's table of ops is of.

    Raises:
        UsageError: no generation of that name.
        ImageError: the image shows none: its kernel was built without LGUEST_GUEST.
    """
    if name:
        return abi_by_name(name)
    image = guest.image
    # By symbol first: it is exact, while a search of the data may hit a ring in some other structure.
    found = _of_symbol(guest)
    if found is None and guest.boot_protocol == "builtin":
        # A layout's name begins with its kernel's version, and host and kernel were built from one tree.
        return abi_by_name(getattr(guest, "layout", "").partition("-")[0])
    found = found or next(_in_data(image), None)
    if found is None and LGUEST_DATA in guest.symbols:
        message = "has the shape of no generation that is known; those of 4.9 find devices by PCI, not lguest"
        raise image.error(message, field=LGUEST_DATA)
    if found is None:
        raise image.error("shows no struct lguest_data: the kernel was built without LGUEST_GUEST", field=LGUEST_DATA)
    return _of_code(guest, found)


def _most() -> int:
    """Bytes of the largest struct lguest_data."""
    return max(abi.data.size for abi in ABIS.values())


def _of_symbol(guest: Guest) -> Abi | None:
    address = guest.symbols.get(LGUEST_DATA)
    try:
        return None if address is None else abi_of_data(guest.image.read(address, _most()))
    except ImageError:
        return None


def _in_data(image: KernelImage) -> Iterator[Abi]:
    """What any run of free ring entries in the image belongs to, for a kernel whose data has no symbols."""
    ring = bytes([DONE]) * RING_SIZE
    at = image.data.find(ring)
    while at >= 0:
        # Each generation has its ring at another offset, so each is tried with the ring where it was found.
        for status in {abi.data.hcall_status for abi in ABIS.values()}:
            found = abi_of_data(image.data[max(at - status, 0) : at - status + _most()])
            # 2.6.23 has no system-call vector to confirm a find, and 64 bytes of 0xFF alone prove little.
            if found is not None and found.data.syscall_vec is not None and found.data.hcall_status == status:
                yield found
        at = image.data.find(ring, at + 1)


def _of_code(guest: Guest, shown: Abi) -> Abi:
    """Of the generations with the same data, the one whose registers and bus the kernel's code uses."""
    entry = guest.symbols.get(LGUEST_ENTRY)
    # 2.6.24 to 2.6.30 have the same structure; it is code that tells them apart.
    if entry is None or shown.name != "2.6.24":
        return shown
    # mov ebx means kvm_hypercall1()'s register, mov edx lguest's own.
    if _MOV_EBX in guest.image.read(entry, _ENTRY_BYTES)[5:6]:  # behind mov eax, LHCALL_LGUEST_INIT
        return ABIS["2.6.30"]
    return ABIS["2.6.24" if FIELD_FINDER in guest.symbols else "2.6.25"]
