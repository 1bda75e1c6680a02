"""What one command cost: wall time, processor time and memory, of it and of all that it started."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

_POLL_S = 0.05
_TAIL = 400


class CommandError(Exception):
    """A command that was to be measured failed."""


@attrs.frozen
class Usage:
    """What a command took.

    Attributes:
        wall_s: seconds from its start to its end.
        processor_s: seconds of processor time, user and system, of all its processes.
        memory: the most bytes that its processes were seen to have resident, each at its own peak, added up; pages that
            they share count once for each.
        output: what it printed.
    """

    wall_s: float
    processor_s: float
    memory: int
    output: str


def measure(command: Sequence[str], timeout_s: float) -> Usage:
    """Run a command to its end.

    Raises:
        CommandError: it cannot be started, ends with another status than 0, or is not done in time.
    """
    # Modules that are compiled anew each time would be what is measured.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environ,
        )
    except OSError as failure:
        raise CommandError(f"{command[0]}: {failure.strerror}") from failure
    watch = _MemoryWatch(process.pid)
    timer = threading.Timer(timeout_s, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        output = process.stdout.read().decode(errors="replace")
        # The usage of this process and of those that it has waited for, and of no others (wait4(2)).
        _, status, used = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
        peak = watch.end()
    wall_s = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise CommandError(f"{' '.join(command)}: exit status {process.returncode}\n{output[-_TAIL:]}")
    # ru_maxrss is in KiB (getrusage(2)); a process may have come and gone between two looks.
    return Usage(wall_s, used.ru_utime + used.ru_stime, max(peak, used.ru_maxrss << 10), output)


class _MemoryWatch(threading.Thread):
    """Looks at the peaks of a process and its descendants until told to end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._peaks: dict[int, int] = {}
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        """Look again and again."""
        while not self._over.wait(_POLL_S):
            for pid in _family(self._pid):
                self._peaks[pid] = max(self._peaks.get(pid, 0), _peak(pid))

    def end(self) -> int:
        """Stop looking; the sum of what was seen, in bytes."""
        self._over.set()
        self.join()
        return sum(self._peaks.values())


def _family(pid: int) -> list[int]:
    found = [pid]
    # The list grows while it is gone through: children of children.
    for each in found:
        try:
            lists = [task.read_text() for task in Path(f"/proc/{each}/task").glob("*/children")]
        except OSError:
            continue
        found += [int(child) for text in lists for child in text.split()]
    return found


def _peak(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) << 10
