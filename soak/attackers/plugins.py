"""Bad plugins of every kind in every place: the command ends soon and in order, and says whose fault it was and where.

A round makes some of all pairs of kind and place. The seed is its number: as many rounds as there are pieces make every
pair once, in an order of their own for each pass. Passes take turns in whether the plugin is a file or installed.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs

from pvops_core.child.offspring import Offspring
from soak.damage.deeds import DEEDS, ENDS_IT, RAISES, RETURNS
from soak.tally import Tally

A_ROUND: Final = 10
_PARAMETERS: Final = {
    "load_tr_desc": "",
    "save_fl": "",
    "set_pte": ", ptep, pteval",
    "make_pte": ", val",
    "flush_tlb_user": "",
    "load_sp0": ", sp0",
    "load_gdt": ", dtr",
}
"""Ops of every convention that the built-in guest calls three times, and what they take beside the vCPU."""
_OPS: Final = tuple(_PARAMETERS)
PLACES: Final = (
    "load",
    "init",
    *(f"{op} at {call}" for op in _OPS for call in (1, 3)),
    "load_tr_desc in compare",
    "init in compare",
    "save_fl in pytest",
    "load in pytest",
)
_SECONDS: Final = 90
_ENVIRON: Final = {"PVOPS_PLUGIN_TIMEOUT": "4", "PVOPS_START_TIMEOUT": "6"}
_CODES: Final = frozenset({0, 2, 4, 5, 6})
_BACKEND: Final = """
import ctypes, os, resource, signal, subprocess, sys, threading, time, warnings
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_native import backend as native

class Speechless(Exception):
    def __str__(self):
        raise RuntimeError
    __repr__ = __str__

class Odd(BaseException):
    pass

def deep():
    deep()

def deed():
{deed}

{load}
class Ops:
    calls = 0
    def __init__(self, env):
        self.env = env
{init}

{hook}
backend = Backend(name="bad", api=API, description="bad", base="native", ops=Ops, forces=frozenset({{"XENPV"}}))
"""
_HOOK: Final = """    @hookimpl
    def {op}(self, cpu{parameters}):
        Ops.calls += 1
        if Ops.calls == {call}:
            {bad}
        return native.ops.{op}(self, cpu{parameters})
"""
_INSTALLED: Final = {
    "METADATA": "Metadata-Version: 2.1\nName: bad-pv\nVersion: 1.2.3\n",
    "entry_points.txt": "[pvops.backends]\nbad = bad:backend\n",
    "RECORD": "bad.py,,\n",
}
_ITS_NAME: Final = "bad-pv 1.2.3, entry point bad = bad:backend"
_TEST: Final = "def test_one(call):\n    call('save_fl')\n"


@attrs.frozen
class BadPlugin:
    """A kind of deed in a place.

    Attributes:
        deed: what it does.
        place: when, and in which command.
        installed: the plugin is a distribution with an entry point; it is given as a file otherwise.
    """

    deed: str
    place: str
    installed: bool = False

    @property
    def op(self) -> str:
        """The op whose hook does it; empty where none does."""
        op = self.place.partition(" ")[0]
        return op if op in _OPS else ""

    def source(self) -> str:
        """The plugin."""
        body = "\n".join(f"    {line}" for line in DEEDS.get(self.deed, "pass").splitlines())
        call = self.place.rpartition(" at ")[2] if " at " in self.place else "1"
        bad = f"return {RETURNS[self.deed]}" if self.deed in RETURNS else "deed()"
        where = self.place.partition(" ")[0]
        hook = _HOOK.format(op=self.op, parameters=_PARAMETERS[self.op], call=call, bad=bad) if self.op else ""
        init, load = ("        deed()" if where == "init" else ""), ("deed()" if where == "load" else "")
        return _BACKEND.format(deed=body, load=load, init=init, hook=hook)

    def write(self, folder: Path) -> None:
        """Put the plugin there, and what installs it."""
        (folder / "bad.py").write_text(self.source(), encoding="utf-8", errors="surrogatepass")
        if self.installed:
            (folder / "bad_pv-1.2.3.dist-info").mkdir()
            for name, text in _INSTALLED.items():
                (folder / "bad_pv-1.2.3.dist-info" / name).write_text(text, encoding="utf-8")

    def command(self, folder: Path) -> list[str]:
        """What is run, in the plugin's folder."""
        given = [] if self.installed else ["--plugin", str(folder / "bad.py")]
        if self.place.endswith("pytest"):
            (folder / "test_it.py").write_text(_TEST, encoding="utf-8")
            words = [
                "-m",
                "pytest",
                "-q",
                "-p",
                "no:cacheprovider",
                "--pvops-backend",
                "bad",
                "--pvops-layouts",
                "6.1-64",
            ]
            return [
                sys.executable,
                *words,
                *(f"--pvops-{each}" if each == "--plugin" else each for each in given),
                "test_it.py",
            ]
        verb = ["compare", "--layouts", "6.1-64", "--backends", "native,bad"] if "compare" in self.place else [
            "run", "--backend", "bad", "--layout", "6.1-64"]  # fmt: skip
        return [sys.executable, "-m", "pvops_core", *verb, *given, "--max-seconds", "4"]


def cases(*, installed: bool = False) -> list[BadPlugin]:
    """All pairs that there are: what a hook gives back is asked in hooks alone."""
    # Hooks under test run in pytest itself: what ends a process ends that.
    made = [(deed, at) for deed in DEEDS for at in PLACES if not (deed in ENDS_IT and at == "save_fl in pytest")]
    made += [(deed, place) for deed in RETURNS for place in PLACES if " at " in place]
    return [BadPlugin(deed, place, installed) for deed, place in made]


def play(seed: int) -> Tally:
    """Some cases."""
    pieces = -(-len(cases()) // A_ROUND)
    turn = seed // pieces
    there = cases(installed=turn % 2 == 1)
    random.Random(turn).shuffle(there)
    tally = Tally()
    for case in there[seed % pieces :: pieces]:
        wrong = _wrong(case)
        tally.count += 1
        if wrong:
            tally.wrong.append(f"{case.deed} in {case.place}{', installed' * case.installed}: {wrong}")
    return tally


def _wrong(case: BadPlugin) -> str:
    """What was wrong with how it ended; empty if nothing was."""
    offspring, begin = Offspring(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        case.write(Path(folder))
        environ = os.environ | _ENVIRON | {"XDG_CACHE_HOME": folder, "PYTHONPATH": folder} | offspring.mark
        with Path(folder, "said").open("w+b") as out:  # a pipe would be held open by who is left behind
            process = subprocess.Popen(
                case.command(Path(folder)), cwd=folder, env=environ, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                process.wait(_SECONDS)
            except subprocess.TimeoutExpired:
                offspring.kill()
                process.wait()
                return f"no end after {_SECONDS} s"
            out.seek(0)
            said = out.read(1 << 22).decode(errors="replace")
    left = offspring.pids()
    offspring.kill()
    if left and not case.place.startswith("load"):  # what is loaded is loaded into the command itself too
        return f"{len(left)} processes were left behind"
    return _said_wrong(case, process.returncode, said, time.monotonic() - begin)


def _said_wrong(case: BadPlugin, code: int, said: str, took: float) -> str:
    frames = [line for line in said.splitlines() if line.lstrip().startswith('File "') and "/pvops_core/" in line]
    if frames and not case.place.endswith("pytest"):
        return f"frames of ours are shown: {frames[0].strip()}"
    if "INTERNALERROR" in said or (code not in _CODES and not (case.place.endswith("pytest") and code in {1, 3})):
        return f"exit code {code} after {took:.0f} s: {said[-300:]!r}"
    if "\x1b" in said or "\udc80" in said:
        return "an escape reached the terminal"
    told = case.deed in RAISES | ENDS_IT and "not called" not in said
    return _untold(case, code, said.replace("\n", "")) if told else ""


def _untold(case: BadPlugin, code: int, said: str) -> str:
    """What is not said of an error or an end that was."""
    if (_ITS_NAME if case.installed else "bad") not in said:
        return f"the plugin is not named: {said[-300:]!r}"
    if case.op and case.op not in said:
        return f"the hook is not named: {said[-300:]!r}"
    if case.op and case.deed in RAISES and "pytest" not in case.place and "called from" not in said:
        return f"the call site is not named: {said[-300:]!r}"
    return "" if code else "it went unnoticed"
