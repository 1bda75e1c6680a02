"""Kernels that stand where tests begin: booted once, kept on the user's shelf, loaded by everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from pvops_core.backends import load_backends
from pvops_core.saved.shelf import Shelf
from pvops_core.session import Session
from pvops_core.testing.booted import BootedKernel, Recipe
from tests.session.test_ophooks import patching

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.backends import Backend


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf", 1 << 30)


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    return dict(load_backends().backends)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    image = tmp_path / "vmlinux"
    image.write_bytes(patching().data)
    return Recipe(str(image), "native", place="alternatives")


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
