"""Tests of one hook with the fixtures: each alone, and a thousand of them on two processes.

The floor is the same number of tests that ask for nothing: what pytest itself takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from xml.etree import ElementTree as ET

from benchmarks.measure import Result

NUMBER = 1000
REPEATS = 3
HEAD = "import pytest\n@pytest.mark.pvops_kinds('x86_64')\n@pytest.mark.parametrize('number', range({number}))\n"
HOOK = """def test_it(call, number):
    done = call("write_cr3", call.session.machine.vcpus[0].cr3)
    assert not done.changes
"""
NOTHING = "def test_it(number):\n    assert number >= 0\n"


def run() -> Iterator[Result]:
    """Two rows for each backend."""
    with tempfile.TemporaryDirectory() as folder:
        floor = best(Path(folder), NOTHING, "native", "-n2")
        for backend in ("native", "xen"):
            alone = times(Path(folder), backend)
            yield Result(f"a hook test on {backend}, fixture included (median)", median(alone) * 1e3, "ms", 5.0)
            seconds = best(Path(folder), HOOK, backend, "-n2")
            yield Result(f"{NUMBER} of them on two processes, {backend}", seconds, "s", 10.0)
        yield Result(f"{NUMBER} tests that ask for nothing, on two processes", floor, "s", 10.0)


def best(folder: Path, body: str, backend: str, *options: str) -> float:
    """Seconds for all of pytest, at its best of some."""
    found = []
    for _ in range(REPEATS):
        start = perf_counter()
        pytest(folder, body, backend, *options)
        found.append(perf_counter() - start)
    return min(found)


def times(folder: Path, backend: str) -> list[float]:
    """Seconds of each test, set up and taken down included."""
    report = folder / "report.xml"
    pytest(folder, HOOK, backend, f"--junitxml={report}")
    return [float(case.attrib["time"]) for case in ET.parse(report).iter("testcase")]  # noqa: S314  our own file


def pytest(folder: Path, body: str, backend: str, *options: str) -> None:
    """Run the tests."""
    (folder / "test_hooks.py").write_text(HEAD.format(number=NUMBER) + body, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pvops-backend", backend, *options]
    # Modules that are compiled anew each time would be what is measured.
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([*command, "test_hooks.py"], cwd=folder, check=True, env=environ, stdout=subprocess.DEVNULL)
