"""CPU models whose features are known by name: those of QEMU 7.2 without hardware acceleration, as Linux found them.

Read off boots of Linux 6.12.117 on bare metal with one CPU and the mitigations that it chose by itself. Words that the
processor fills are the same for every kernel; those that Linux fills (3, 7, 8, 11, 21) are alike in 6.1 to 7.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.patching.capabilities import capability_counts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.images import KernelImage

SYSCALL32: Final = 3 * 32 + 14
SYSENTER32: Final = 3 * 32 + 15


@attrs.frozen
class Model:
    """A CPU model.

    Attributes:
        words: words of features by their number; the rest are 0.
        bugs: words of bugs, from the first on.
    """

    words: Mapping[int, int]
    bugs: tuple[int, ...]

    def features(self, image: KernelImage) -> frozenset[int]:
        """Numbers of the features that a kernel would find."""
        capabilities, bugs = capability_counts(image)
        words = {number: word for number, word in self.words.items() if number < capabilities}
        words |= {capabilities + number: word for number, word in enumerate(self.bugs[:bugs])}
        found = {32 * number + bit for number, word in words.items() for bit in range(32) if word >> bit & 1}
        # Once the bit said that sysenter enters from 32-bit code; where nothing tells the two apart any more (7.2),
        # that anything faster than int 0x80 does.
        if SYSCALL32 in found and "xen_enable_sysenter" not in image.symbols:
            found.add(SYSENTER32)
        return frozenset(found)


MODELS: Final[Mapping[str, Model]] = {
    "qemu64": Model(
        {
            0: 0x78BFBFD,
            1: 0x2193FBFD,
            3: 0x6714010,
            4: 0x80002001,
            6: 0x105,
            7: 0x82000,
            8: 0x8000,
            11: 0x1020,
            20: 0x4,
        },
        (0x1AD40,),
    ),
    "max": Model(
        {
            0: 0xFCBFBFD,
            1: 0xEDD3FBFD,
            3: 0x6714010,
            4: 0xFED8320B,
            6: 0x175,
            7: 0x82000,
            8: 0x8000,
            9: 0x1D843A9,
            10: 0x5,
            11: 0x1020,
            14: 0x4,
            15: 0x10010001,
            16: 0x8001021C,
            20: 0x4,
        },
        (0x1AD40,),
    ),
    "EPYC": Model(
        {
            0: 0x78BFBFD,
            1: 0x2DD3FBFD,
            3: 0x6714010,
            4: 0xFED8320B,
            6: 0x175,
            7: 0x110A2000,
            8: 0x8000,
            9: 0x9801A9,
            10: 0x5,
            11: 0x8100D020,
            14: 0x4,
            15: 0x1,
            20: 0x4,
        },
        (0x28038540, 0x3),
    ),
}
"""The models by QEMU's names for them."""
