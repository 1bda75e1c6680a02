"""Xen's public structures, declared as its headers declare them; each file says which those are."""

from pathlib import Path
from typing import Final

from pvops_core.headers import Header

_HERE: Final = Path(__file__).parent

XEN: Final = Header(_HERE / "xen.h")
VCPU: Final = Header(_HERE / "vcpu.h", XEN)
SCHED: Final = Header(_HERE / "sched.h", XEN)
EVENT_CHANNEL: Final = Header(_HERE / "event_channel.h", XEN)
PHYSDEV: Final = Header(_HERE / "physdev.h", XEN)
MEMORY: Final = Header(_HERE / "memory.h", PHYSDEV)
GRANT_TABLE: Final = Header(_HERE / "grant_table.h", XEN)
CALLBACK: Final = Header(_HERE / "callback.h", XEN)
HVM_OP: Final = Header(_HERE / "hvm_op.h", XEN)
CONTROL: Final = Header(_HERE / "control.h", XEN)
E820: Final = Header(_HERE / "e820.h", packed=True)
VERSION: Final = Header(_HERE / "version.h", XEN)
IO: Final = Header(_HERE / "io.h", XEN)
