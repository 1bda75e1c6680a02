"""What a study runs: its axes multiplied, its rules applied, each cell with its key."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
from msgspec.structs import asdict, replace

from pvops_core import guests
from pvops_core.backends.choices import choices_for, parse_choices
from pvops_core.errors import UsageError, unknown
from pvops_core.images import machine_of
from pvops_core.kinds import MachineKind, kind_of
from pvops_core.ops import LAYOUTS
from pvops_core.runs.plan import Files, Skipped, Workload, bases_first, choose, machine_kinds, plan_builtin, plan_kernel
from pvops_core.runs.wire import Inspection, Request
from pvops_core.runs.workloads import tasks_of, written
from pvops_core.study.axes import AXES, Axes
from pvops_core.study.errors import StudyError
from pvops_core.study.keys import Keys
from pvops_core.study.spec import BUILTIN, MEASURES, KernelAndInitrd, Rule, StudySpec
from pvops_core.study.values import MOST, meant, numbers, several

if TYPE_CHECKING:
    from pvops_core.backends import Loaded
    from pvops_core.runs.cell import Cell

_BUILTIN_MIB: Final = 16
_KERNEL_MIB: Final = 256
_ALL_OPS: Final = "*"
_MOST: Final = {"cpus": 128, "memory": 1 << 20}
"""As of the commands that run one guest."""


@attrs.frozen
class Planned:
    """A cell of a study.

    Attributes:
        key: hash over all that determines its run.
        axes: where it stands.
        request: how it is run.
        hashes: SHA-256 of the kernel's file and the ramdisk's; empty for none.
    """

    key: str
    axes: Axes
    request: Request
    hashes: tuple[str, str] = ("", "")


@attrs.frozen
class StudyPlan:
    """All cells of a study, in the order in which they are run.

    Attributes:
        cells: each with a key of its own.
        skipped: backends and guests that do not go together.
        reference: the backend that others are measured by.
    """

    cells: tuple[Planned, ...]
    skipped: tuple[Skipped, ...]
    reference: str


def plan_study(spec: StudySpec, loaded: Loaded, folder: Path) -> StudyPlan:
    """The plan of a study.

    Args:
        spec: what is asked for.
        loaded: the backends that there are.
        folder: what its paths begin at.

    Raises:
        StudyError: what is asked for does not exist or does not fit together; it names the key.
        ImageError: a kernel cannot be read.
    """
    return _Planner(spec, loaded, folder).plan()


@contextmanager
def _at(key: str) -> Iterator[None]:
    """Whatever is wrong inside is wrong with a key."""
    try:
        yield
    except UsageError as error:
        raise StudyError(error.message, key=key) from error


class _Planner:
    def __init__(self, spec: StudySpec, loaded: Loaded, folder: Path) -> None:
        self._spec, self._loaded, self._folder = spec, loaded, folder
        self._keys = Keys(loaded.backends)
        self._skipped: dict[tuple[str, str, str], Skipped] = {}
        with _at("backends"):
            self._names = choose("backend", several(spec.backends), bases_first(loaded.backends))
        with _at("measure"):
            self._measured = choose("measure", several(spec.measure), MEASURES) if spec.measure else []
        for rule, number, name in self._rules():
            if rule and not rule.keys() <= set(AXES):
                wrong = next(key for key in rule if key not in AXES)
                raise StudyError(unknown("axis", wrong, AXES).message, key=f"{name}[{number}].{wrong}")

    def _rules(self) -> Iterator[tuple[Rule, int, str]]:
        for name in ("include", "exclude"):
            yield from ((rule, number, name) for number, rule in enumerate(several(getattr(self._spec, name))))

    def plan(self) -> StudyPlan:
        cells = tuple(itertools.islice(self._cells(), MOST + 1))
        if len(cells) > MOST:
            raise StudyError(f"has more than {MOST:,} cells: narrow its axes, or make several studies of it", key="")
        present = dict.fromkeys(each.axes.backend for each in cells)
        reference = self._spec.reference or next(iter(present), "")
        if cells and reference not in present:
            with _at("reference"):
                raise unknown("backend in the study", reference, present)
        return StudyPlan(cells, tuple(self._skipped.values()), reference)

    def _cells(self) -> Iterator[Planned]:
        spec = self._spec
        named: dict[str, Sequence[int]] = {}
        for key in ("cpus", "memory", "seeds"):
            with _at(key):
                named[key] = numbers(getattr(spec, key))
        for key, most in _MOST.items():
            if wrong := [number for number in named[key] if not 1 <= number <= most]:
                raise StudyError(f"{wrong[0]} is not in the range 1<=x<={most}", key=key)
        cmdlines, all_ops, all_settings = (several(each) for each in (spec.cmdlines, spec.ops, spec.settings))
        with _at("workloads"):
            tasks = [task for each in several(spec.workloads) for task in tasks_of(each) or (None,)]
            if any(tasks) and set(several(spec.kernels)) <= {BUILTIN}:
                raise UsageError("workloads are of kernels: the study names none")
        for guest, files in self._guests():
            memories = named["memory"] or (_KERNEL_MIB if files else _BUILTIN_MIB,)
            for memory, cpus, cmdline, task, ops, settings in itertools.product(
                memories, named["cpus"], cmdlines, tasks, all_ops, all_settings
            ):
                if (ops or task) and not files:
                    continue  # ops of the built-in guest are served in Python in any case; workloads are of kernels
                work = Workload(
                    cmdline, 0, cpus, memory << 20, self._choices(settings), written([task] if task else [])
                )
                place = task.label if task else "", ops, settings
                basis = [
                    (self._axes(guest if files else BUILTIN, cell, place), self._request(cell, ops))
                    for cell in self._hosted(guest, files, work)
                ]
                for seed, repeat in itertools.product(named["seeds"], range(1, spec.repeats + 1)):
                    for axes, request in basis:
                        yield from self._planned(axes, request, seed, repeat)

    def _planned(self, axes: Axes, request: Request, seed: int, repeat: int) -> Iterator[Planned]:
        axes = replace(axes, seed=seed, repeat=repeat)
        if self._wanted(axes):
            cell = replace(request.cell, seed=seed)
            request = replace(request, cell=cell)
            kernel = cell.guest if cell.group.of_kernel else ""
            hashes = self._keys.file(kernel), self._keys.file(cell.initrd)
            yield Planned(self._keys.key(request, repeat), axes, request, hashes)

    def _wanted(self, axes: Axes) -> bool:
        fields = asdict(axes)

        def matches(name: str) -> list[bool]:
            with _at(name):
                rules = several(getattr(self._spec, name))
                return [all(meant(fields[key], value) for key, value in rule.items()) for rule in rules]

        included = matches("include")
        return (any(included) or not included) and not any(matches("exclude"))

    def _choices(self, settings: str) -> dict[str, dict[str, str]]:
        with _at("settings"):
            return choices_for(self._names, parse_choices(settings.split()), self._loaded.backends)

    def _axes(self, guest: str, cell: Cell, place: tuple[str, str, str]) -> Axes:
        return Axes(
            guest,
            cell.layout,
            cell.kind.value,
            cell.memory >> 20,
            cell.vcpus,
            cell.workload,
            *place,
            0,
            1,
            cell.backend,
        )

    def _request(self, cell: Cell, ops: str) -> Request:
        spec, kernel = self._spec, cell.group.of_kernel
        patterns = None if not ops else () if ops == _ALL_OPS else tuple(ops.replace(" ", "").split(","))
        return Request(
            cell,
            tuple(plugin_paths(spec, self._folder)),
            max_seconds=spec.max_seconds,
            examine=kernel,
            until=spec.until if kernel else "",
            stop_at=spec.stop_at if kernel else "",
            inside=Inspection(trace=kernel and "calls" in self._measured, ops=patterns),
            without=self._loaded.broken,
        )

    def _hosted(self, layout: str, files: Files | None, work: Workload) -> tuple[Cell, ...]:
        backends = self._loaded.backends
        if files is None:
            kinds = {name: machine_kinds(backends[name], backends) for name in self._names}
            plan = plan_builtin(kinds, {layout: LAYOUTS[layout].kind}, work)
        else:
            plan = plan_kernel(self._names, backends, files, work, count="instructions" in self._measured)
        for each in plan.skipped:
            self._skipped.setdefault((each.backend, each.layout, each.reason), each)
        return plan.cells

    def _guests(self) -> Iterator[tuple[str, Files | None]]:
        """Layout of the built-in guest, or name and files of a kernel."""
        kernels: tuple[str | KernelAndInitrd, ...] = several(self._spec.kernels) or (BUILTIN,)
        found = [each for kernel in kernels if kernel != BUILTIN for each in self._files(kernel)]
        names = [Path(files.kernel).name for files in found]
        for kernel in kernels:
            if kernel == BUILTIN:
                yield from ((layout, None) for layout in self._layouts())
        for name, files in zip(names, found, strict=True):
            yield (files.kernel if names.count(name) > 1 else name), files

    def _layouts(self) -> list[str]:
        there = sorted(guests.LAYOUTS, key=lambda name: -LAYOUTS[name].kind.bits)
        with _at("kinds"):
            kinds = choose("machine kind", several(self._spec.kinds), [kind.value for kind in MachineKind])
        with _at("layouts"):
            layouts = choose("layout", several(self._spec.layouts), there)
        return [name for name in layouts if LAYOUTS[name].kind.value in kinds]

    def _files(self, kernel: str | KernelAndInitrd) -> list[Files]:
        of = KernelAndInitrd(kernel, self._spec.initrd) if isinstance(kernel, str) else kernel
        paths = sorted(glob.glob(str(self._folder / os.path.expandvars(of.kernel))))  # noqa: PTH207 - absolute patterns too
        if not paths:
            raise StudyError(f"there is no {of.kernel}", key="kernels")
        initrd = str((self._folder / os.path.expandvars(of.initrd)).resolve()) if of.initrd else ""
        if initrd and not Path(initrd).is_file():
            raise StudyError(f"there is no {of.initrd}", key="initrd")
        return [Files(path, initrd, kind_of(machine_of(Path(path)))) for path in paths]


def plugin_paths(spec: StudySpec, folder: Path) -> Iterator[str]:
    """Plugins of a study: paths made absolute, names of modules as they are."""
    for text in several(spec.plugins):
        path = folder / text
        yield str(path.resolve()) if path.exists() else text
