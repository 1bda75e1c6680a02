from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.errors import StoreError
from pvops_core.study.rows import Measured, Row
from pvops_core.study.store import FILE, VERSION, PlannedRow, Store

Observe = Callable[..., Observation]


def add(store: Store, number: int, observation: Observation) -> Measured:
    measured = Measured.of(f"{number:064x}", observation, "host", 1)
    store.add(measured, observation)
    return measured


def planned(row: Row) -> PlannedRow:
    return PlannedRow(row.axes, row.guest_sha256, row.initrd_sha256, row.measured.key)


def test_what_is_kept_comes_back(store: Store, observe: Observe, make_row: Callable[..., Row]) -> None:
    row = make_row("xen", seed=3)
    observation = observe("xen", seed=3)
    store.note([planned(row), planned(make_row("xen", seed=4))], {"name": "a", "plugins": ["b"]})
    store.add(row.measured, observation)
    with Store.read(store.folder) as again:
        assert again.rows() == [row]
        assert again.observation(row.measured.key) == observation
        assert again.meta() == {"name": "a", "plugins": ["b"]}
        assert len(again.planned()) == 2
        with pytest.raises(StoreError, match="no run of key"):
            again.observation("00")


def test_a_new_plan_leaves_runs_alone(store: Store, observe: Observe, make_row: Callable[..., Row]) -> None:
    row = make_row()
    store.note([planned(row)], {})
    store.add(row.measured, observe())
    store.note([], {})
    assert store.rows() == []
    assert store.keys() == {row.measured.key: row.measured}


_WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.rows import Measured
from pvops_core.study.store import Store
observation = Observation(Cell("b", "l", MachineKind.I386), Outcome.POWEROFF, console="x" * 20_000)
with Store.write(Path(sys.argv[1])) as store:
    for number in range(int(sys.argv[2]), 10_000):
        store.add(Measured.of(f"{{number:064x}}", observation, "host", 1), observation)
        print(number, flush=True)
"""


_READ_ONLY = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
from pvops_core.study.errors import StoreError
from pvops_core.study.store import Store
folder = Path({folder!r})
with Store.read(folder) as store:
    print(*store.keys(), sep="\\n")
try:
    Store.write(folder)
except StoreError as error:
    print(error)
"""


def test_no_run_that_was_acknowledged_is_lost_to_a_kill(tmp_path: Path) -> None:
    """Killed at random points, with a row half written or none; the next writer goes on."""
    folder, draw, acknowledged = tmp_path / "results", random.Random(1), -1
    script = _WRITER.format(path=sys.path)
    for _ in range(8):
        command = [sys.executable, "-c", script, str(folder), str(acknowledged + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _line in range(draw.randrange(1, 12)):
                acknowledged = int(writer.stdout.readline())
            signal.sigtimedwait([], draw.random() / 100)
            writer.kill()
            for line in writer.stdout:
                acknowledged = int(line)
        with Store.write(folder) as store:  # also rolls back what was half written, which reading alone may not
            there = [int(key, 16) for key in list(store.keys())]
            assert there[: acknowledged + 1] == list(range(acknowledged + 1))
            assert len(there) <= acknowledged + 2
            acknowledged = len(there) - 1


def test_a_full_disk_loses_nothing_that_was_kept(store: Store, observe: Observe) -> None:
    kept = [add(store, number, observe()) for number in range(3)]
    pages = store.database.execute("PRAGMA page_count").fetchone()[0]
    store.database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="cannot be read or written: database or disk is full; what was kept"):
        kept.extend(add(store, number, observe(console="x" * 9000)) for number in range(3, 50))
    with Store.read(store.folder) as again:
        assert list(again.keys().values()) == kept
    store.database.execute("PRAGMA max_page_count = 100000")
    kept.append(add(store, 99, observe()))
    assert list(store.keys().values()) == kept


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="mounting takes a superuser")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    script = _WRITER.format(path=sys.path).replace("20_000", "200_000")
    (tmp_path / "small").mkdir()
    (tmp_path / "writer.py").write_text(script)
    inside = (
        f"mount -t tmpfs -o size=1m none {tmp_path}/small 2>/dev/null || exit 77; "
        f"{sys.executable} {tmp_path}/writer.py {tmp_path}/small/results 0; "
        f"cp {tmp_path}/small/results/{FILE} {tmp_path}/{FILE}"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mounts here")
    assert "StoreError" in done.stderr
    assert "disk is full" in done.stderr
    with Store.write(tmp_path) as store:
        assert len(store.keys()) == len(done.stdout.split()) > 0


def test_a_damaged_row_counts_as_not_there(store: Store, observe: Observe) -> None:
    good, bad, worse = (add(store, number, observe()) for number in range(3))
    with store.database:
        store.database.execute(
            "UPDATE runs SET observation = replace(observation, 'well', 'ill') WHERE key = ?", (bad.key,)
        )
        store.database.execute("UPDATE runs SET traps = 'many' WHERE key = ?", (worse.key,))
    assert store.keys() == {good.key: good}
    assert add(store, 1, observe()).key in set(store.keys())


@pytest.mark.parametrize("damage", ["cut", "zeros", "text", "empty"])
def test_a_damaged_file_is_told(store: Store, observe: Observe, damage: str) -> None:
    for number in range(20):
        add(store, number, observe())
    file = store.folder / FILE
    data = file.read_bytes()
    broken = {
        "cut": data[: len(data) // 3],
        "zeros": data[:100] + bytes(len(data) - 100),
        "text": b"hello\n" * 99,
        "empty": b"",
    }
    file.write_bytes(broken[damage])
    with pytest.raises(StoreError, match="results"), Store.read(store.folder) as again:
        list(again.raw())


def test_another_version_is_refused(store: Store) -> None:
    store.database.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(StoreError, match=f"has format {VERSION + 1}"):
        Store.read(store.folder)


def test_two_writers(store: Store) -> None:
    with pytest.raises(StoreError, match="another process writes"):
        Store.write(store.folder)
    with Store.read(store.folder):
        pass


def test_who_reads_while_it_is_made_sees_none_or_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a writer that was killed then, and one that left an empty file."""
    folder = tmp_path / "results"
    table = "CREATE TABLE a (b); COMMIT; SELECT no_such_function(1);"
    with monkeypatch.context() as patched:
        patched.setattr("pvops_core.study.store._table", lambda: table)
        with pytest.raises(StoreError, match="no such function"):
            Store.write(folder)
    with pytest.raises(StoreError, match="has no results"):
        Store.read(folder)
    (folder / FILE).touch()
    with Store.write(folder) as store, Store.read(folder) as reader:
        assert store.keys() == reader.keys() == {}
    assert sorted(each.name for each in folder.iterdir()) == [".lock", FILE]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="has no results"):
        Store.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        Store.write(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="a superuser may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        Store.write(tmp_path / "results")


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare here (util-linux)")
def test_a_disk_that_is_read_only_is_read_and_not_written(store: Store, observe: Observe, tmp_path: Path) -> None:
    """For a superuser, too."""
    kept = [add(store, number, observe()).key for number in range(3)]
    script = tmp_path / "script.py"
    script.write_text(_READ_ONLY.format(path=sys.path, folder=str(store.folder)))
    place = shlex.quote(str(store.folder))
    inside = f"mount --bind {place} {place} && mount -o remount,ro,bind {place} || exit 77; {sys.executable} {script}"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    *read, refused = done.stdout.splitlines()
    assert read == kept, done.stderr
    assert "results: cannot be written: Read-only file system" in refused
    assert list(store.keys()) == kept


def test_a_file_that_cannot_be_written(store: Store, observe: Observe) -> None:
    row = add(store, 1, observe())
    store.database.execute("PRAGMA query_only = 1")
    with pytest.raises(StoreError, match="readonly"):
        add(store, 2, observe())
    assert store.keys() == {row.key: row}


def test_merging_takes_what_is_missing_or_was_lost(store: Store, observe: Observe, tmp_path: Path) -> None:
    lost = add(store, 1, observe(outcome=Outcome.DIED))
    own = add(store, 2, observe(reason="own"))
    with Store.write(tmp_path / "other") as other:
        better, _, new = add(other, 1, observe()), add(other, 2, observe(reason="theirs")), add(other, 3, observe())
        assert store.take(other) == 2
    assert store.keys() == {lost.key: better, own.key: own, new.key: new}
    with Store.read(tmp_path / "other") as other:
        assert store.take(other) == 0


def test_other_tools_read_it(store: Store, observe: Observe, make_row: Callable[..., Row]) -> None:
    rows: list[Any] = [make_row(seed=seed) for seed in range(3)]
    store.note(map(planned, rows), {})
    for row in reversed(rows):
        store.add(row.measured, observe(seed=row.axes.seed))
    with sqlite3.connect(f"file:{store.folder / FILE}?mode=ro", uri=True) as plain:
        found = plain.execute("SELECT backend, seed, instructions, json_extract(observation, '$.console') FROM results")
        assert found.fetchall() == [("native", seed, 1000, "guest: all is well\n") for seed in range(3)]
    plain.close()
