"""``pvops run --explore``: a lock whose waiters lose patience is found by the first schedule that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvops_core.cli import main

RACY = """
from pvops_core.backends import API, Backend
from pvops_core.hookspecs import hookimpl
from pvops_core.machine import Reschedule

class Ops:
    def __init__(self, env):
        self.looks = 0

    @hookimpl
    def queued_spin_lock_slowpath(self, cpu, lock, val):
        self.looks += 1
        if cpu.u32(lock) & 0xFF and self.looks < 16:
            raise Reschedule
        self.looks = 0  # enters, whoever is inside

backend = Backend(name="racy", api=API, description="racy", base="native", ops=Ops)
"""


@pytest.fixture
def racy(tmp_path: Path) -> list[str]:
    (tmp_path / "racy.py").write_text(RACY)
    return ["--plugin", str(tmp_path / "racy.py"), "--backend", "racy"]


def test_the_first_seed_with_another_result_is_shown(
    racy: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, events = tmp_path / "found.json", tmp_path / "events"
    words = ["run", "--cpus", "2", "--explore", "20", "--json", str(target), "--events", str(events), *racy]
    assert main(words) == 5
    document = json.loads(target.read_text())
    found = document["deviation"]
    assert document["schema"] == "pvops.explore/1"
    assert document["explored"] == found["seed"] + 1 <= document["asked"] == 20
    assert (
        found["run"]["results"]["spin_count"] == found["differences"][0]["found"] != document["results"]["spin_count"]
    )
    said = capsys.readouterr().out
    assert f"seed {found['seed']}: another result than seed 0's" in said
    assert "schedules: the first difference in the event log" in said
    logs = [(tmp_path / f"events.{seed}").read_text().splitlines() for seed in (0, found["seed"])]
    number = found["schedule"]["reference"][0]["number"]
    assert logs[0][:number] == logs[1][:number]
    assert logs[0][number] != logs[1][number]
    for shown, log in zip((found["schedule"]["reference"], found["schedule"]["found"]), logs, strict=True):
        assert {key: shown[0][key] for key in ("ns", "kind", "vcpu", "fields")} == json.loads(log[number])


def test_that_seed_alone_gives_that_result(racy: list[str], tmp_path: Path) -> None:
    target = tmp_path / "found.json"
    assert main(["run", "--cpus", "2", "--explore", "20", "--seed", "3", "--json", str(target), *racy]) == 5
    found = json.loads(target.read_text())["deviation"]
    assert main(["run", "--cpus", "2", "--seed", str(found["seed"]), "--json", str(target), *racy]) == 0
    alone = json.loads(target.read_text())
    for key in ("results", "event_log_sha256", "virtual_ns"):
        assert alone[key] == found["run"][key]


def test_a_sound_backend_has_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "found.json"
    assert main(["run", "--cpus", "3", "--explore", "4", "--seed", "7", "--json", str(target)]) == 0
    document = json.loads(target.read_text())
    assert document["deviation"] is None
    assert (document["seed"], document["explored"], document["asked"]) == (7, 4, 4)
    assert capsys.readouterr().out == "seeds 7 to 10: one result, poweroff\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--explore", "5"], "say --cpus 2 or more"),
        (["--explore", "1", "--cpus", "2"], "--explore"),
        (["--explore", "5", "--cpus", "2", "--layout", "2.6.24", "--backend", "lguest"], "one vCPU"),
    ],
)
def test_what_cannot_be_explored(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words]) == 2
    assert said in capsys.readouterr().err
