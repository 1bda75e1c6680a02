"""Run a sample of mutants of each area, and say which of them no test saw."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

from mutation.meaning import meaningless

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parent.parent
SUITE: Final = "--pyargs pvops_core.testing.conformance"
TIMEOUT_S: Final = 240
"""Seconds for all tests of a mutant; one that hangs counts as seen."""
PACKAGES: Final = (".", "plugins/native", "plugins/xen", "plugins/lguest")
CONFIG: Final = """[cosmic-ray]
module-path = {modules}
timeout = {timeout}
excluded-modules = []
test-command = {command!r}
[cosmic-ray.distributor]
name = "local"
"""


def main() -> None:
    """Run the areas that were named, or all."""
    areas = tomllib.loads(Path(__file__).with_name("areas.toml").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="python -m mutation", description=__doc__)
    parser.add_argument("areas", nargs="*", metavar="AREA", help=", ".join(areas))
    parser.add_argument("--sample", type=int, default=50, metavar="N", help="mutants of each area (default: 50)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which mutants (default: 0)")
    parser.add_argument("--folder", type=Path, default=ROOT / ".mutation", help="where to work (default: .mutation)")
    given = parser.parse_args()
    if wrong := set(given.areas) - areas.keys():
        parser.error(f"no area {', '.join(sorted(wrong))}; there are {', '.join(areas)}")
    for name in given.areas or areas:
        folder = given.folder / name
        tree = copied(folder)
        session = folder / "session.sqlite"
        config = folder / "config.toml"
        config.write_text(configured(areas[name]), encoding="utf-8")
        run(tree, "baseline", config)
        run(tree, "init", config, session)
        with use_db(session, WorkDB.Mode.open) as database:
            choose(database, tree, given.sample, random.Random(given.seed))
        run(tree, "exec", config, session)
        with use_db(session, WorkDB.Mode.open) as database:
            report(name, database)


def copied(folder: Path) -> Path:
    """A copy of the tree's files as they are, with compiled code that is trusted only if its source is the same."""
    tree = folder / "tree"
    shutil.rmtree(folder, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    compile_all = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "."]
    subprocess.run(compile_all, cwd=tree, check=False)
    return tree


def configured(area: Mapping[str, list[str]]) -> str:
    """The tool's configuration for an area."""
    pytest = f"{sys.executable} -m pytest -x -q -p no:cacheprovider"
    command = " && ".join(f"{pytest} {tests.format(suite=SUITE)}" for tests in area["tests"])
    return CONFIG.format(modules=area["modules"], timeout=TIMEOUT_S, command=f'sh -c "{command}"')


def run(tree: Path, verb: str, *files: Path) -> None:
    """Run the tool in the copy, which comes before what is installed."""
    environ = os.environ | {
        "PYTHONPATH": os.pathsep.join(str(tree / package) for package in PACKAGES),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PVOPS_KERNELS": os.environ.get("PVOPS_KERNELS", str(ROOT.parent / "shared" / "kernels")),
    }
    command = [sys.executable, "-m", "cosmic_ray.cli", verb, *map(str, files)]
    subprocess.run(command, cwd=tree, env=environ, check=True)


def choose(database: WorkDB, tree: Path, number: int, chance: random.Random) -> None:
    """Leave a sample of the mutants that mean something to be run."""
    items = sorted(database.work_items, key=_place)
    good = [item for item in items if not _never_run(tree, item)]
    kept = {item.job_id for item in chance.sample(good, min(number, len(good)))}
    skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
    for item in items:
        if item.job_id not in kept:
            database.set_result(item.job_id, skipped)


def _never_run(tree: Path, item: WorkItem) -> bool:
    place = item.mutations[0]
    return meaningless(tree / place.module_path, place.start_pos, place.end_pos)


def _place(item: WorkItem) -> tuple[str, tuple[int, int], str, int]:
    place = item.mutations[0]
    return str(place.module_path), place.start_pos, place.operator_name, place.occurrence


def report(area: str, database: WorkDB) -> None:
    """The figures, and each mutant that lived."""
    results = {job: result for job, result in database.results if result.worker_outcome != WorkerOutcome.SKIPPED}
    lived = [job for job, result in results.items() if result.test_outcome == TestOutcome.SURVIVED]
    for text in sorted(_shown(database, lived)):
        sys.stdout.write(f"{text}\n")
    killed = len(results) - len(lived)
    share = 100 * killed / max(1, len(results))
    sys.stdout.write(f"{area}: {killed} of {len(results)} mutants were seen ({share:.0f} %)\n")


def _shown(database: WorkDB, jobs: list[str]) -> Iterator[str]:
    diffs = {job: result.diff or "" for job, result in database.results}
    for item in database.work_items:
        if item.job_id in jobs:
            place = item.mutations[0]
            lines = diffs[item.job_id].splitlines()
            changed = [line for line in lines if line[:1] in "+-" and line[:3] not in {"+++", "---"}]
            yield "\n".join([f"lived: {place.module_path}:{place.start_pos[0]} {place.operator_name}", *changed])


if __name__ == "__main__":
    main()
