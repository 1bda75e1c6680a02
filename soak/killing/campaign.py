"""A study on a cluster whose processes are killed at random until it is done."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import attrs

from soak.killing.cluster import KINDS, Cluster
from soak.killing.kept import Seen, unlike
from soak.tally import Tally

_LOOK_S: Final = 0.2
_NO_PROGRESS_S: Final = 600
"""Without a new run for so long, whatever is killed and started meanwhile, the study hangs."""
_PAUSE_S: Final = 3.0
"""A kill comes up to so long after the run that it is due at: at any moment of a start, a run or a commit."""
_CLUSTER_LOST: Final = 4
"""Exit code of a client that was not killed itself."""
_MOST_FAILURES: Final = 3
"""Clients in a row, with nobody killed, that may find no cluster yet: on a machine with much to do it starts slowly."""
_PVOPS: Final = (sys.executable, "-m", "pvops_core")


def attack(
    seed: int, cells: int, kills: int, *, minutes: float = math.inf, tell: Callable[[str], None] = lambda _text: None
) -> Tally:
    """Run a study of the built-in guest while its processes are killed, and hold it against one that nobody disturbed.

    Args:
        seed: of who is killed when.
        cells: of the study.
        kills: how many.
        minutes: after which nobody is killed any more.
        tell: told now and then how far it is.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder, "study.toml")
        file.write_text(f'layouts = "6.1-64"\nbackends = ["native", "xen"]\nseeds = "0..{cells // 2 - 1}"\n')
        round_ = _Round(Path(folder), file, random.Random(f"studies {seed}"), cells, kills, minutes, tell)
        return round_.play()


@attrs.define
class _Round:
    folder: Path
    file: Path
    chance: random.Random
    cells: int
    kills: int
    minutes: float
    tell: Callable[[str], None]
    tally: Tally = attrs.field(factory=Tally)
    failures: int = 0

    def play(self) -> Tally:
        seen, cluster = Seen(self.folder / "results"), Cluster(self.folder, lambda: self._client(cluster.address))
        try:
            self._disturb(cluster, seen)
        finally:
            left = cluster.end()
        self.tally.wrong += [f"left behind: {each}" for each in left]
        if not self.tally.wrong:
            self._run("study", "run", str(self.file), "-o", str(self.folder / "undisturbed"), "--jobs", "2")
            self.tally.wrong += [*seen.lost(), *unlike(seen.folder, self.folder / "undisturbed")]
        return self.tally

    def _disturb(self, cluster: Cluster, seen: Seen) -> None:
        """Kill and start again, until the study says that it is done."""
        due = sorted(self.chance.randrange(self.cells * 9 // 10) for _ in range(self.kills))
        begin = at = progress = time.monotonic()
        runs = 0
        cluster.tend()
        cluster.begin()
        while not self.tally.wrong:
            if (now := seen.look()) > runs:
                runs, progress = now, time.monotonic()
            if time.monotonic() > begin + 60 * self.minutes:
                due.clear()
            if due and runs >= due[0] and time.monotonic() >= at and self._kill(cluster):
                due.pop(0)
                at = time.monotonic() + self.chance.random() * _PAUSE_S
                self.failures = 0
                self.tell(f"{self.tally.count} killed, {runs} of {self.cells} cells")
            code = cluster.tend()
            if code == 0:
                return
            if code is not None:
                self._judge(code, cluster.said())
                cluster.begin()
            if time.monotonic() - progress > _NO_PROGRESS_S:
                self.tally.wrong.append(f"no run for {_NO_PROGRESS_S} s: {cluster.said()[-1000:]!r}")
            time.sleep(_LOOK_S)

    def _kill(self, cluster: Cluster) -> bool:
        kind = self.chance.choice(KINDS)
        killed = cluster.kill(kind, self.chance.choice)
        self.tally.count += killed
        self.tally.notes[kind] += killed
        return killed

    def _judge(self, code: int, said: str) -> None:
        """What a client's end means that did not come with the study's."""
        self.tally.notes["clients"] += 1
        if "Traceback" in said:
            self.tally.wrong.append(f"a client showed a traceback: {said[-2000:]!r}")
        self.failures += code == _CLUSTER_LOST
        if code not in {-signal.SIGKILL, _CLUSTER_LOST} or self.failures > _MOST_FAILURES:
            self.tally.wrong.append(f"a client ended with {code}: {said[-1000:]!r}")

    def _client(self, address: str) -> list[str]:
        with contextlib.suppress(StopIteration):
            next((self.folder / "results").glob("*.sqlite"))
            return [*_PVOPS, "study", "resume", str(self.folder / "results"), "--scheduler", address]
        return [*_PVOPS, "study", "run", str(self.file), "-o", str(self.folder / "results"), "--scheduler", address]

    def _run(self, *words: str) -> None:
        done = subprocess.run([*_PVOPS, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            self.tally.wrong.append(f"{words[1]} undisturbed ended with {done.returncode}: {done.stderr[-1000:]!r}")
