"""One run, made again and again: under other hash seeds, in other processes, beside others, saved and loaded."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pvops_core.backends import Backend, load_backends
from pvops_core.errors import PvopsError
from pvops_core.session import Session
from soak.tally import Tally
from tests.switchboard.storm import cells

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FRESH: Final = 3
SAVED: Final = 4
HERE: Final = 4
_END_NS: Final = 4_000_000_000


class RepeatedCell:
    """One cell, chosen by a seed, that is run in every way."""

    def __init__(self, seed: int) -> None:
        self.seed, self.chance = seed, random.Random(f"repeats {seed}")
        self.cell = self.chance.choice(list(cells()))

    @cached_property
    def backends(self) -> Mapping[str, Backend]:
        """Those that there are."""
        return load_backends().backends

    def session(self) -> Session:
        """A new one of the cell."""
        cell = self.cell
        return Session.of_builtin(cell.layout, cell.backend, backends=self.backends, vcpus=cell.vcpus, seed=self.seed)

    def here(self) -> Iterator[tuple[str, int]]:
        """In this process: hash and end, from the beginning and from a snapshot."""
        with self.session() as session:
            start = session.machine.snapshot()
            for _ in range(HERE):
                session.run(max_ns=_END_NS)
                yield session.machine.log.sha256, session.machine.clock.ns
                session.machine.restore(start)

    def apart(self) -> str:
        """By the command, under another hash seed."""
        cell = self.cell
        words = ["run", "--backend", cell.backend, "--layout", cell.layout, "--cpus", str(cell.vcpus)]
        return str(self._pvops([*words, "--seed", str(self.seed)]).get("event_log_sha256"))

    def beside(self) -> Iterator[str]:
        """Among those of a comparison, whose workers are two."""
        words = ["compare", "--layouts", self.cell.layout, "--cpus", str(self.cell.vcpus), "--jobs", "2"]
        for run in self._pvops([*words, "--seed", str(self.seed)]).get("runs", []):
            if run.get("backend") == self.cell.backend:
                yield str(run.get("event_log_sha256"))

    def saved(self, at: int) -> str:
        """Saved at some time, and gone on with in another session."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "saved")
            try:
                with self.session() as session:
                    session.run(max_ns=at)
                    session.save(path)
                with Session.load(path, backends=self.backends) as loaded:
                    loaded.run(max_ns=_END_NS)
                    return loaded.machine.log.sha256
            except PvopsError as error:
                return f"{type(error).__name__}: {error}"

    def _pvops(self, words: list[str]) -> dict[str, Any]:
        # In another order of sets of text a run must be the same.
        environ = os.environ | {"PYTHONHASHSEED": str(self.chance.randrange(1 << 32))}
        command = [sys.executable, "-m", "pvops_core", *words, "--json", "-"]
        ran = subprocess.run(command, env=environ, check=False, capture_output=True)
        document: dict[str, Any] = json.loads(ran.stdout or b"{}")
        return document


def play(seed: int) -> Tally:
    """One cell in all ways."""
    subject = RepeatedCell(seed)
    here = list(subject.here())
    wanted, end = here[0]
    found = [(f"here, {number}", each) for number, (each, _) in enumerate(here)]
    found += [(f"process {number}", subject.apart()) for number in range(FRESH)]
    found += [("beside others", each) for each in subject.beside()]
    moments = [subject.chance.randrange(1, end) for _ in range(SAVED)]
    found += [(f"saved at {at}", subject.saved(at)) for at in moments]
    wrong = [f"{subject.cell}, {how}: {each}" for how, each in found if each != wanted]
    return Tally(len(found), wrong)
