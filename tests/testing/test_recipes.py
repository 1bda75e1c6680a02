"""Kernels that stand where tests begin: booted once, kept on the user's shelf, loaded by everybody else."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.saved.shelf import Shelf
from pvops_core.session import Session
from pvops_core.testing.booted import BootedKernel, Recipe
from tests.session.test_ophooks import patching

if TYPE_CHECKING:
    from pvops_core.backends import Backend

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    return dict(load_backends().backends)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    image = tmp_path / "vmlinux"
    image.write_bytes(patching().data)
    return Recipe(str(image), "native", place="alternatives")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 1 << 30)


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where kernels were booted to."""
    places: list[str] = []
    run_to = Session.run_to

    def counted(self: Session, place: str, **limits: float) -> object:
        places.append(place)
        return run_to(self, place, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "run_to", counted)
    return places


def stand(
    recipe: Recipe, backends: dict[str, Backend], shelf: Shelf | None, *, fresh: bool = False
) -> tuple[object, ...]:
    with BootedKernel(recipe, backends, shelf, fresh=fresh) as kernel:
        assert kernel.vcpu.rip == kernel.symbols["alternative_instructions"]
        at = kernel.machine.clock.ns, kernel.machine.log.sha256
        kernel.session.run()
        return (*at, kernel.machine.clock.ns, kernel.machine.log.sha256)


def test_it_is_booted_once(recipe: Recipe, backends: dict[str, Backend], shelf: Shelf, boots: list[str]) -> None:
    first = stand(recipe, backends, shelf)
    assert stand(recipe, backends, shelf) == first
    assert len(boots) == len(shelf.files()) == 1
    assert stand(recipe, backends, shelf, fresh=True) == first
    assert (len(boots), len(shelf.files())) == (2, 1)
    assert stand(recipe, backends, None)[:2] == first[:2]


@pytest.mark.parametrize("change", [{"seed": 1}, {"place": "start_kernel"}, {"cmdline": "quiet"}, {"vcpus": 2}])
def test_another_is_another(
    recipe: Recipe, backends: dict[str, Backend], shelf: Shelf, boots: list[str], change: dict[str, object]
) -> None:
    for each in (recipe, attrs.evolve(recipe, **change)):
        BootedKernel(each, backends, shelf).close()
    assert len(boots) == len(shelf.files()) == 2


def test_a_damaged_file_is_made_again(
    recipe: Recipe, backends: dict[str, Backend], shelf: Shelf, boots: list[str]
) -> None:
    first = stand(recipe, backends, shelf)
    path = shelf.files()[0][0]
    for damage in (b"", b"x" * 1000, path.read_bytes()[:-1]):
        path.write_bytes(damage)
        assert stand(recipe, backends, shelf) == first
    assert len(boots) == 4


def test_a_shelf_that_cannot_be_written_costs_no_more_than_the_boot(
    recipe: Recipe, backends: dict[str, Backend], tmp_path: Path, boots: list[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    there = stand(recipe, backends, None)
    assert stand(recipe, backends, Shelf(tmp_path / "file" / "shelf", 1 << 30)) == there
    assert len(boots) == 2


def test_a_full_disk_costs_no_more_than_the_boot(
    recipe: Recipe, backends: dict[str, Backend], shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    there = stand(recipe, backends, None)
    monkeypatch.setattr("pvops_core.saved.container.write", full)
    assert stand(recipe, backends, shelf) == there
    assert [each.name for each in shelf.folder.iterdir() if not each.name.endswith(".lock")] == []


HOLDER = """
import os, sys, time
from pathlib import Path
from pvops_core.saved.shelf import Shelf
with Shelf(Path(sys.argv[1]), 1).held("name"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_holder_that_dies_gives_the_lock_back(shelf: Shelf) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(shelf.folder)], stdout=subprocess.PIPE, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        with shelf.held("name") as place:
            assert place


def test_locks_go_with_what_they_are_for(shelf: Shelf) -> None:
    def left() -> list[str]:
        return sorted(path.name for path in shelf.folder.iterdir())

    with shelf.held("name"):
        shelf.path("name").write_bytes(b"")
    shelf.clear(0)
    assert left() == [".name.lock", "name.session"]
    with shelf.held("other"):
        shelf.clear(1 << 40)
        assert left() == [".other.lock"], "it is in use"
    shelf.clear(1 << 40)
    assert not left()


def test_who_waits_for_a_lock_that_is_taken_away_holds_the_next(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = shelf.folder / ".name.lock"
    waits = []

    def waited(file: int, operation: int) -> None:
        if not waits:
            lock.unlink()
        waits.append(operation)
        flock(file, operation)

    flock = fcntl.flock
    monkeypatch.setattr("fcntl.flock", waited)
    with shelf.held("name") as place:
        assert place
        assert len(waits) == 2
        assert lock.exists()


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 10 << 10)
    for number in range(4):
        shelf.path(str(number)).write_bytes(b"x" * 4096)
        os.utime(shelf.path(str(number)), (number, number))
    shelf.used("0")
    shelf.trim("1")
    assert sorted(path.name for path, _size, _used in shelf.files()) == ["0.session", "1.session"]
    assert shelf.clear(0) == (0, 0)
    assert shelf.clear(1 << 40) == (2, 8192)
    assert not shelf.files()
