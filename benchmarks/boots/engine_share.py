"""Where a boot's time goes: in the engine, and in each sort of Python handler.

    python -m benchmarks.boots.engine_share BACKEND KERNEL INITRD MEMORY CMDLINE

Boots in this process with a stop-watch around every entry of the engine and around every handler, and prints one JSON
object. The stop-watch itself costs about half a microsecond a handler, which is counted as the engine's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from time import thread_time
from typing import TYPE_CHECKING, Final

from pvops_core.backends import chain, load_backends
from pvops_core.guests import read_kernel
from pvops_core.machine.exits.handlers import Handlers
from pvops_core.machine.unicorn.engine import Engine
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.guest.protocol import Guest

IN_ENGINE: Final = "in_engine"


class StopWatch:
    """Seconds and calls by name."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.calls: Counter[str] = Counter()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time all entries of engines, and all handlers by the name of what they do."""
        start, run = Engine.start, Handlers.run

        def entered(engine: Engine, rip: int) -> int:
            begin = thread_time()
            try:
                return start(engine, rip)
            finally:
                self._add(IN_ENGINE, begin)

        def handled(owner: Handlers, action: Callable[..., None], *arguments: object) -> bool:
            begin = thread_time()
            try:
                return run(owner, action, *arguments)
            finally:
                # Some are partial functions.
                self._add(getattr(action, "__name__", type(action).__name__).strip("_"), begin)

        # By name: mypy takes a method of the engine's for one of its own class when it is assigned.
        setattr(Engine, "start", entered)  # noqa: B010
        setattr(Handlers, "run", handled)  # noqa: B010
        try:
            yield
        finally:
            setattr(Engine, "start", start)  # noqa: B010
            setattr(Handlers, "run", run)  # noqa: B010

    def _add(self, name: str, begin: float) -> None:
        self.seconds[name] += thread_time() - begin
        self.calls[name] += 1


def share(backend: str, guest: Guest, memory: int) -> dict[str, object]:
    """Run a guest once: what its time went to."""
    watch, loaded = StopWatch(), load_backends()
    begin = thread_time()
    with watch.watching(), Session(guest, chain(loaded.backends[backend], loaded.backends), memory=memory) as session:
        built = thread_time()
        stop = session.run()
        over = thread_time()
        blocks = session.machine.blocks
    inside = watch.seconds.pop(IN_ENGINE)
    handlers = sum(watch.seconds.values())
    most = sorted(watch.seconds.items(), key=itemgetter(1), reverse=True)
    return {
        "outcome": stop.reason,
        "build_s": built - begin,
        "run_s": over - built,
        "engine_s": inside - handlers,
        "handlers_s": handlers,
        "between_s": over - built - inside,
        "handlers": {name: {"s": seconds, "calls": watch.calls[name]} for name, seconds in most},
        "blocks": blocks,
    }


def main(backend: str, kernel: str, initrd: str, memory: str, cmdline: str) -> None:
    """Print what one boot of a kernel was made of."""
    report = share(backend, read_kernel(kernel, initrd, cmdline), int(memory) << 20)
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
