"""Live patches of a booted kernel by a script and by a socket, while it runs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pvops_core.errors import UsageError
from pvops_core.livepatch.control.report import LivepatchReport
from pvops_core.livepatch.control.script import Script, read_script
from pvops_core.livepatch.control.server import Server
from pvops_core.livepatch.control.tool import Tool
from pvops_core.livepatch.kernel import live_patches

if TYPE_CHECKING:
    from pvops_core.livepatch.control.findings import LivePatched
    from pvops_core.livepatch.control.orders import PatchOrders
    from pvops_core.session import Session


class LiveBoot:
    """Does what a :class:`PatchOrders` says while a session runs. A context manager.

    Args:
        session: made with page frames for payloads.
        patching: what.
        show: is given lines for the user.
    """

    def __init__(self, session: Session, patching: PatchOrders, show: Callable[[str], None]) -> None:
        # Closes what was opened even if what follows fails.
        self._stack = ExitStack()
        self._script: Script | None = None
        patches = live_patches(session)
        self._report = report = LivepatchReport(patches, show)
        if patching.script:
            steps = read_script(patching.script, patching.path)
            tool = Tool(patches, _read, report.say)
            self._script = Script(session.machine, tool, steps, report.step, session.platform.console)
            # Before the socket: a script's first step may be at time 0, and a request must not come between.
            self._script.start()
        if patching.socket:
            self._stack.enter_context(Server(Path(patching.socket), patches, report))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def found(self) -> LivePatched:
        """What was done."""
        return self._report.found(self._script)


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path}: cannot be read: {reason}") from error
