"""Files that pvops reads back, damaged: saved states, caches, notes, event logs. Each is refused, or made again."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pvops_core.backends import load_backends
from pvops_core.backends.loading.proven import Proven
from pvops_core.errors import PvopsError
from pvops_core.kept import Kept
from pvops_core.runs.worker.events import read_events, write_events
from pvops_core.session import Session
from soak import ledger
from soak.damage import fields
from soak.tally import Tally

FILES: Final = 40
"""Damaged ones of each kind."""


def play(seed: int) -> Tally:
    """Some of each kind."""
    chance, tally = random.Random(f"damage {seed}"), Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind, (path, read) in _kinds(folder, seed).items():
            good = path.read_bytes()
            for _ in range(FILES):
                path.write_bytes(fields.stream(good, chance) if chance.randrange(5) else _replaced(good, chance))
                tally.count += 1
                tally.notes[kind] += 1
                try:
                    read(path)
                except PvopsError:
                    tally.notes["refused"] += 1
                except ledger.LedgerError:
                    tally.notes["refused"] += 1
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    tally.wrong.append(f"{kind}: {type(error).__name__}: {error}")
                path.write_bytes(good)
    return tally


def _replaced(good: bytes, chance: random.Random) -> bytes:
    """A file of quite another kind in its place."""
    return chance.choice(
        (b"", b"\0" * 100, b"{}", b"[]\n", b"null", b"[" * 100_000, good * 2, good[::-1], b"\xff" * 4096)
    )


def _kinds(folder: Path, seed: int) -> dict[str, tuple[Path, Callable[[Path], object]]]:
    """A sound file of each kind, and what reads it."""
    backends = load_backends().backends
    saved, log = folder / "saved", folder / "events"
    with Session.of_builtin("6.1-64", "native", backends=backends, seed=seed, memory=4 << 20) as session:
        session.run(max_ns=60_000)
        session.save(saved)
        write_events(session.machine.log.events, str(log))
    kept = Kept("soak", ("kept",), 4, {"XDG_CACHE_HOME": str(folder)})
    kept.write("thing", b"front", b"body" * 100)
    (cache,) = (folder / "pvops" / "soak").iterdir()
    notes = folder / "plugins.json"
    notes.write_text(json.dumps({"a": "b" * 64, "c": "d" * 64}), encoding="utf-8")
    book = folder / "ledger"
    ledger.add("images", 3, path=book)

    def load(path: Path) -> None:
        with Session.load(path, backends=backends) as loaded:
            loaded.run(max_ns=1000, max_seconds=5)

    def look(_path: Path) -> None:
        found = kept.read("thing")
        assert found in {None, (b"front", b"body" * 100)}, "other bytes than were kept"

    return {
        "saved state": (saved, load),
        "event log": (log, lambda path: list(read_events(str(path)))),
        "kept thing": (cache, look),
        "notes on plugins": (notes, lambda path: Proven(path).keep()),
        "ledger": (book, ledger.read),
    }
