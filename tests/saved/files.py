"""Files of saved sessions, whole and forged."""

from __future__ import annotations

from typing import Any

import numpy as np

from pvops_core.saved.front import Making
from pvops_core.saved.key import Key
from pvops_core.x86 import PAGE

KEY = Key(
    "kernel",
    "ab",
    "",
    "quiet",
    ("native",),
    {"cpu": "max"},
    "x86_64",
    1,
    64 * PAGE,
    0,
    9,
    counted=False,
    tool_frames=0,
    engine="engine",
    sources={},
)
MAKING = Making("/boot/vmlinuz", "", {}, 64 * PAGE)
STATES = bytes(range(256)) * 20


def memory() -> np.ndarray[Any, np.dtype[np.uint8]]:
    array = np.zeros(64 * PAGE, np.uint8)
    array[0] = 1
    array[5 * PAGE : 7 * PAGE] = np.arange(2 * PAGE) % 251
    array[-1] = 7
    return array
