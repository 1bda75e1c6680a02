"""Event-log hash and virtual time of every run of the built-in guest: every backend, layout and 1 to 4 CPUs.

``python docs/tools/hashes.py > hashes.txt`` with one release, again with another, and ``diff`` says what has changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

from pvops_core.guests.builtin.image import LAYOUTS

BACKENDS: Final = ("native", "xen", "lguest")
SEED: Final = "3"


def run(backend: str, layout: str, cpus: int) -> str | None:
    """One line, or None where the backend does not run the layout."""
    options = ("--backend", backend, "--layout", layout, "--cpus", str(cpus), "--seed", SEED, "--json", "-")
    done = subprocess.run([sys.executable, "-m", "pvops_core", "run", *options], capture_output=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        return None
    result = json.loads(done.stdout[done.stdout.index(b"{\n") :])
    return f"{backend} {layout} {cpus} {result['event_log_sha256']} {result['virtual_ns']}"


def main() -> None:
    """Write what each run gives."""
    for backend in BACKENDS:
        for layout in LAYOUTS:
            for cpus in range(1, 5):
                line = run(backend, layout, cpus)
                if line is None:
                    break
                sys.stdout.write(line + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
