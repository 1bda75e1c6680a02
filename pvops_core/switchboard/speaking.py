"""Who speaks: which hook of which op, on which vCPU, is being served, as the stack tells it.

Looked up when something is printed and not noted when a hook is called, so that hooks that say nothing pay nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import attrs

from pvops_core.backends.blame import own
from pvops_core.switchboard import dispatch

if TYPE_CHECKING:
    from types import FrameType


@attrs.frozen
class Speaker:
    """Whose code runs.

    Attributes:
        name: ``backend.op`` of a hook, else the module of the code.
        vcpu: index of the vCPU that is served; None where that is not known.
        ns: virtual time; None where that is not known.
    """

    name: str
    vcpu: int | None = None
    ns: int | None = None


def speaker() -> Speaker:
    """Whose code has called."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the documented way to the stack
    module = ""
    while frame is not None:
        if frame.f_code.co_name == "serve" and frame.f_globals.get("__name__") == dispatch.__name__:
            vcpu = frame.f_locals["vcpu"]
            return Speaker(frame.f_locals["implementation"].name, vcpu.index, vcpu.machine.clock.ns)
        if not module and own(frame):
            module = _module(frame)
        frame = frame.f_back
    return Speaker(module)


def _module(frame: FrameType) -> str:
    """The module of a frame; empty of the standard library's, which speaks for somebody else."""
    name = str(frame.f_globals.get("__name__", ""))
    return "" if name.partition(".")[0] in sys.stdlib_module_names else name
