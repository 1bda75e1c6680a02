"""The studies that are in the tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.study.job import read_job

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
CELLS = {"layouts": 66, "seeds": 2000, "sizes": 36}


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.stem)
def test_it_can_be_planned(file: Path) -> None:
    job = read_job(file)
    if "PVOPS_KERNELS" in job.text and not os.environ.get("PVOPS_KERNELS"):
        pytest.skip("needs the kernels that Debian ships")
    plan = job.plan(load_backends(plugins=job.plugins))
    assert len(plan.cells) == CELLS.get(file.stem, len(plan.cells)) > 1
    assert len([line for line in job.text.splitlines() if not line.startswith("#")]) <= 6


def test_there_are_some() -> None:
    assert {file.stem for file in STUDIES} == {"layouts", "releases", "seeds", "sizes", "workloads"}
