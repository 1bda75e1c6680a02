from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pvops_core.backends import Loaded, load_backends
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.counts import Counts, PlatformCounts
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.study.axes import Axes
from pvops_core.study.rows import Measured, Row
from pvops_core.study.store import Store
from pvops_core.testing.images import ElfBuilder

Observe = Callable[..., Observation]


@pytest.fixture(scope="session")
def loaded() -> Loaded:
    return load_backends()


@pytest.fixture
def observe() -> Observe:
    """An observation such as a short run gives; any field can be given instead."""

    def observation(backend: str = "native", **fields: Any) -> Observation:  # noqa: ANN401 - any field
        counts = Counts({"write_cr3": 3}, {"write_cr3": 2}, PlatformCounts({"iret": 7}, {"page fault": 12}, 9, 8))
        usual: dict[str, Any] = {
            "outcome": Outcome.POWEROFF,
            "results": {"status": "done"},
            "console": "guest: all is well\n",
            "counts": counts,
            "sites": {"write_cr3": {"inlined": 2, "direct": 1}},
            "instructions": 1000,
            "virtual_ns": 2000,
            "wall_s": 0.5,
            "event_log_sha256": "ab" * 32,
            "text_sha256": "cd" * 32,
        }
        cell = fields.pop("cell", Cell(backend, "6.1-64", MachineKind.X86_64, seed=fields.pop("seed", 0)))
        return Observation(cell, **(usual | fields))

    return observation


@pytest.fixture
def make_row(observe: Observe) -> Callable[..., Row]:
    """A row of a run, with values of axes and fields of its observation."""

    def row(backend: str = "native", *, seed: int = 0, repeat: int = 1, cpus: int = 1, **fields: Any) -> Row:  # noqa: ANN401
        axes = Axes("builtin", "6.1-64", "x86_64", 16, cpus, "", "", "", "", seed, repeat, backend)
        key = f"{abs(hash((backend, seed, repeat, cpus))):064x}"
        return Row(axes, "", "", Measured.of(key, observe(backend, seed=seed, **fields), "host", 1))

    return row


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.write(tmp_path / "results") as opened:
        yield opened


@pytest.fixture
def small_kernel(tmp_path: Path) -> Path:
    """A kernel of one instruction, in a file."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xf4"))
    path = tmp_path / "vmlinux"
    path.write_bytes(builder.build())
    return path
