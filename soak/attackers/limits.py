"""Signals and limits of the process at random moments: it ends soon, says why in a line, and leaves nobody behind."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from pvops_core.child.offspring import Offspring
from soak.tally import Tally

PROCESSES: Final = 12
_VERBS: Final = (
    ("run", "--layout", "6.1-64"),
    ("run", "--cpus", "2", "--explore", "4"),
    ("compare", "--layouts", "6.1-64", "--jobs", "2"),
    ("backends",),
    ("scenario", "early-cr3"),
)
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE)
_LIMITS: Final = {
    resource.RLIMIT_AS: (1 << 20, 64 << 20, 200 << 20, 400 << 20, 800 << 20, 2 << 30),
    resource.RLIMIT_NOFILE: (3, 5, 8, 12, 20, 40),
    resource.RLIMIT_FSIZE: (0, 1, 4096),
    resource.RLIMIT_CPU: (1, 2),
    resource.RLIMIT_STACK: (64 << 10, 512 << 10),
}
_SECONDS: Final = 60
_TAKEN: Final = frozenset({0, 2, 4, 6})
"""Done all the same; a file could not be written; the host gave too little; the run was interrupted."""
_NEVER_STARTED: Final = frozenset({1, 127, -signal.SIGABRT, -signal.SIGSEGV})
"""What Python itself ends with that has no memory, stack or descriptor to start with."""
_OVER: Final = frozenset({-signal.SIGXCPU, -signal.SIGXFSZ, -signal.SIGKILL})


def play(seed: int) -> Tally:
    """Some processes."""
    chance, tally = random.Random(f"limits {seed}"), Tally()
    for _ in range(PROCESSES):
        verb = chance.choice(_VERBS)
        sent = chance.choice(_SIGNALS) if chance.randrange(2) else None
        what = chance.choice(list(_LIMITS))
        limit = None if sent else (what, chance.choice(_LIMITS[what]))
        wrong = _wrong(verb, sent, limit, chance.random() * 3)
        tally.count += 1
        if wrong:
            tally.wrong.append(f"{' '.join(verb)} with {sent.name if sent else limit}: {wrong}")
    return tally


def _wrong(verb: tuple[str, ...], sent: signal.Signals | None, limit: tuple[int, int] | None, after_s: float) -> str:
    offspring = Offspring()
    with tempfile.TemporaryDirectory() as folder, Path(folder, "said").open("w+b") as out:
        command = [sys.executable, "-m", "pvops_core", *verb, "--json", str(Path(folder, "json"))]
        if limit:
            begin = f"import resource; resource.setrlimit({limit[0]}, ({limit[1]}, {limit[1]})); "
            command = [sys.executable, "-c", f"{begin}import os; os.execv({sys.executable!r}, {command!r})"]
        process = subprocess.Popen(
            command, env=os.environ | offspring.mark, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if sent:
            time.sleep(after_s)
            process.send_signal(sent)
        try:
            process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            offspring.kill()
            process.wait()
            return f"no end after {_SECONDS} s"
        time.sleep(0.5)  # workers see the end of their parent's pipe
        left = offspring.pids()
        offspring.kill()
        out.seek(0)
        said = out.read().decode(errors="replace")
    if left:
        return f"{len(left)} processes were left behind"
    started = "pvops_core" in said or process.returncode not in {1, -6, -11, 127}  # Python itself may not even start
    if "Traceback" in said and started and "/pvops_core/" in said:
        return f"a traceback: {said[-400:]!r}"
    allowed = _TAKEN | ({-sent} if sent else _NEVER_STARTED | _OVER)
    if process.returncode not in allowed:
        return f"exit code {process.returncode}: {said[-400:]!r}"
    silent = limit is not None and limit[0] == resource.RLIMIT_FSIZE  # nor can it say anything into a file
    if process.returncode == 4 and not said.strip() and not silent:
        return "it failed and said nothing"
    return ""
