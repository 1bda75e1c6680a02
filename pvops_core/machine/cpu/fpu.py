"""The x87, MMX and SSE registers, as the image that FXSAVE writes.

Source: Intel SDM volume 1, 10.5.1 (the image), volume 2, FXRSTOR.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from pvops_core.machine.cpu.faults import general_protection

if TYPE_CHECKING:
    from pvops_core.kinds import MachineKind
    from pvops_core.machine.engines import Engine

FXSAVE_SIZE: Final = 512
MXCSR_MASK: Final = 0xFFFF
AFTER_FNINIT: Final = struct.pack("<H22xI484x", 0x37F, 0x1F80)
"""As firmware leaves it: volume 1, 8.1.5 and 10.2.3."""
_REGISTERS, _XMM, _STEP = 32, 160, 16  # of FXSAVE's image: Intel SDM volume 1, table 10-2
_FLOAT: Final = 10
_TOP: Final = 11  # of the status word: the register that is ST(0), where the image begins (SDM volume 1, 8.1.3)
# Two bits a register in the tag word (SDM volume 1, 8.1.7); of FXSAVE's one bit a register, 0 is empty (10.5.1.1)
_EMPTY: Final = 3


def save_image(engine: Engine, kind: MachineKind) -> bytes:
    """What FXSAVE writes, in 512 bytes; the pointers to the last x87 instruction and its data are left out."""
    control, status, tags = (int.from_bytes(engine.read_wide(name, 2), "little") for name in ("fpcw", "fpsw", "fptag"))
    top = status >> _TOP & 7
    full = sum((tags >> 2 * number & 3 != _EMPTY) << number for number in range(8))
    image = bytearray(FXSAVE_SIZE)
    struct.pack_into("<HHB", image, 0, control, status, full)
    struct.pack_into("<4sI", image, 24, engine.read_wide("mxcsr", 4), MXCSR_MASK)
    for number in range(8):
        at = _REGISTERS + _STEP * number
        image[at : at + _FLOAT] = engine.read_wide(f"fp{(top + number) & 7}", _FLOAT)
    for number in range(16 if kind.bits == 64 else 8):
        at = _XMM + _STEP * number
        image[at : at + _STEP] = engine.read_wide(f"xmm{number}", _STEP)
    return bytes(image)


def load_image(engine: Engine, kind: MachineKind, image: bytes) -> None:
    """Do what FXRSTOR does with 512 bytes; the pointers to the last x87 instruction and its data are left out.

    Raises:
        GuestFault: #GP(0), and nothing is loaded: MXCSR has bits that are reserved.
    """
    control, status, tags = struct.unpack_from("<HHB", image)
    (mxcsr,) = struct.unpack_from("<I", image, 24)
    # Checked before anything is written, since a refused FXRSTOR changes nothing.
    if mxcsr & ~MXCSR_MASK:
        raise general_protection("MXCSR has reserved bits")
    top = status >> _TOP & 7
    for number in range(8):
        at = _REGISTERS + _STEP * number
        # The image has ST(0) first, the engine numbers physical registers: TOP says which of them ST(0) is.
        engine.write_wide(f"fp{(top + number) & 7}", image[at : at + _FLOAT])
    for number in range(16 if kind.bits == 64 else 8):
        at = _XMM + _STEP * number
        engine.write_wide(f"xmm{number}", image[at : at + _STEP])
    whole = sum((0 if tags >> number & 1 else _EMPTY) << 2 * number for number in range(8))
    for name, value in (("fpcw", control), ("fpsw", status), ("fptag", whole)):
        engine.write_wide(name, struct.pack("<H", value))
    engine.write_wide("mxcsr", struct.pack("<I", mxcsr))
