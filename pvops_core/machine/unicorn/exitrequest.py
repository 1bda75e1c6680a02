"""Where Unicorn keeps its switch for stops in the middle of a block.

To let a callback stop the engine inside a block, Unicorn makes translated code look for such a wish after every load
and store: a call each, with all guest registers written back before it. The library itself leaves that out while a flag
of its engine is set (``no_exit_request`` in its uc_priv.h, there for conditional blocks of ARM), which its interface
does not reach; it is read when code is translated. With it set, a stop takes effect where the next block begins.

The flag is found by what stands around it: behind the word that ``UC_CTL_CONTEXT_MODE`` sets, between the byte that the
first start sets and the one that says that the engine is ready. Then it is tried.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from typing import Final

from pvops_core.machine.unicorn import engine as uc

_SIZE: Final = 0x2000
_CODE: Final = 0x1000
_TEXT: Final = bytes.fromhex("90eb00f4")  # nop, where the stop is asked for; jmp to the hlt behind it
_NEXT_BLOCK: Final = _CODE + 3
_LOOKED_THROUGH: Final = 4096  # bytes of the library's structure, which is several times as large
_NEAR: Final = 64


@functools.cache
def switch_offset() -> int | None:
    """Where in the library's engine structure the flag is; None with a build of the library where that is not sure."""
    memory = mmap.mmap(-1, _SIZE)
    memory[_CODE : _CODE + len(_TEXT)] = _TEXT
    view = (ctypes.c_uint8 * _SIZE).from_buffer(memory)
    engine = uc.Engine(64, ctypes.addressof(view), _SIZE)
    try:
        offset = _find(engine)
        return offset if offset is not None and _works(engine, offset) else None
    finally:
        engine.close()
        del view
        memory.close()


def _find(engine: uc.Engine) -> int | None:
    """The one byte that stands where the flag would."""
    seen = []
    # The word of the mode moves with the mode, which nothing else does.
    for mode in (1, 2, 3):
        engine.set_context_mode(mode)
        seen.append(_bytes(engine))
    engine.set_context_mode(1)
    before = _bytes(engine)
    engine.start(_NEXT_BLOCK)
    after = _bytes(engine)
    modes = [
        at
        for at in range(0, _LOOKED_THROUGH, 4)
        if [int.from_bytes(each[at : at + 4], "little") for each in seen] == [1, 2, 3]
    ]
    if len(modes) != 1:
        return None
    # Three bytes behind that word: a flag of the last start, the one looked for, and that it is ready.
    candidates = range(modes[0] + 4, min(modes[0] + _NEAR, _LOOKED_THROUGH - 2))
    found = [at + 1 for at in candidates if before[at : at + 3] == b"\0\0\1" and after[at : at + 3] == b"\1\0\1"]
    return found[0] if len(found) == 1 else None


def _bytes(engine: uc.Engine) -> bytes:
    return ctypes.string_at(engine.handle, _LOOKED_THROUGH)


def _works(engine: uc.Engine, offset: int) -> bool:
    """Whether the flag at this offset is what decides where a stop takes effect."""

    def stop(_engine: int, _address: int, _size: int, _data: int) -> None:
        engine.stop()

    engine.hook(uc.HOOK_CODE, uc.CODE_CALLBACK(stop), _CODE, _CODE)
    flag = ctypes.c_uint8.from_address(engine.handle + offset)
    stops = []
    # Back to 0 at the end: with the flag set, a stop would be taken late.
    for value in (0, 1, 0):
        flag.value = value
        engine.flush_code()
        engine.start(_CODE)
        stops.append(engine.read(uc.REGISTER_IDS["rip"]))
    return stops == [_CODE, _NEXT_BLOCK, _CODE]
