"""The structures of lguest's ABI in C; each file says which headers of Linux they are from."""

from pathlib import Path
from typing import Final

from pvops_core.headers import Header

_HERE: Final = Path(__file__).parent

BITS: Final = 32
"""Width of all guests."""

LGUEST: Final = Header(_HERE / "lguest.h")
LAUNCHER: Final = Header(_HERE / "lguest_launcher.h")
VIRTIO: Final = Header(_HERE / "virtio.h")
