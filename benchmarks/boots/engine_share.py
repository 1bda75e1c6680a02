"""Where a boot's time goes: in the engine, and in each sort of Python handler.

    python -m benchmarks.boots.engine_share BACKEND KERNEL INITRD MEMORY CMDLINE

Boots in this process with a stop-watch around every entry of the engine and around every handler, and prints one JSON
object. The stop-watch itself costs about half a microsecond a handler, which is counted as the engine's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from time import thread_time

from pvops_core.backends import chain, load_backends
from pvops_core.guests import read_kernel
from pvops_core.machine.exits import callbacks
from pvops_core.machine.unicorn.engine import Engine
from pvops_core.session import Session


class StopWatch:
    """Seconds and calls by name."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def engine(self, start: Callable[[Engine, int], int]) -> Callable[[Engine, int], int]:
        """Time the entries of the engine."""

        def timed(engine: Engine, rip: int) -> int:
            begin = thread_time()
            try:
                return start(engine, rip)
            finally:
                self._add("in_engine", begin)

        return timed

    def handler(self, serve: Callable[..., None]) -> Callable[..., None]:
        """Time the handlers, by the name of what they do."""

        def timed(owner: callbacks.Callbacks, action: Callable[..., None], *arguments: object) -> None:
            begin = thread_time()
            try:
                serve(owner, action, *arguments)
            finally:
                self._add(action.__name__.strip("_"), begin)

        return timed

    def _add(self, name: str, begin: float) -> None:
        self.seconds[name] += thread_time() - begin
        self.calls[name] += 1


def main(backend: str, kernel: str, initrd: str, memory: str, cmdline: str) -> None:
    """Boot once and print what it was made of."""
    watch = StopWatch()
    Engine.start = watch.engine(Engine.start)  # type: ignore[method-assign]
    callbacks.Callbacks._serve = watch.handler(callbacks.Callbacks._serve)  # type: ignore[method-assign]  # noqa: SLF001
    loaded = load_backends()
    begin = thread_time()
    session = Session(
        read_kernel(kernel, initrd, cmdline), chain(loaded.backends[backend], loaded.backends), memory=int(memory) << 20
    )
    with session:
        built = thread_time()
        stop = session.run()
        over = thread_time()
        blocks = session.machine.blocks
    inside = watch.seconds.pop("in_engine")
    handlers = sum(watch.seconds.values())
    report = {
        "outcome": stop.reason,
        "build_s": built - begin,
        "run_s": over - built,
        "engine_s": inside - handlers,
        "handlers_s": handlers,
        "between_s": over - built - inside,
        "handlers": {name: {"s": seconds, "calls": watch.calls[name]} for name, seconds in watch.seconds.most_common()},
        "blocks": blocks,
    }
    sys.stdout.write(json.dumps(report) + "\n")


main(*sys.argv[1:])
