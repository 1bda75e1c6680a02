"""``pvops scenario``: lists, plays, judges."""

from __future__ import annotations

import ctypes
import json
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.errors import MachineError, UsageError
from pvops_core.scenarios import SCENARIOS, Act, Check, Performance, Role, child


def test_without_a_name_the_scenarios_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--list"]):
        assert main(["scenario", *arguments]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines[1:]] == list(SCENARIOS)
    assert main(["scenario", "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "pvops.scenario/1"
    assert [each["name"] for each in document["scenarios"]] == list(SCENARIOS)


def test_a_scenario_is_told_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    target = tmp_path / "scenario.json"
    assert main(["scenario", "early-cr3", "--seed", "3", "--json", str(target)]) == 0
    document = json.loads(target.read_text())
    assert document["schema"] == "pvops.scenario/1"
    assert (document["scenario"], document["seed"], document["honest"]) == ("early-cr3", 3, True)
    assert [act["role"] for act in document["acts"]] == ["old", "fixed"]
    assert [commit["id"] for commit in document["commits"]] == ["8170e6bed465", "0cc9129d75ef"]
    out = capsys.readouterr().out
    for commit in document["commits"]:
        assert commit["id"] in out
    assert document["acts"][0]["facts"]["fault_address"] in out
    assert document["acts"][0]["ending"] in " ".join(out.split())
    assert out.split("\n\n")[-1].startswith("As history says")
    assert not any(line.endswith(" ") for line in out.splitlines())


def test_a_scenario_that_ends_otherwise(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    act = Act(Role.OLD, "the old way", "came to its end", (Check("it crashes", held=False),))
    played = Performance("early-cr3", "summary", (), 0, (act,))
    monkeypatch.setattr(child, "play_apart", lambda *_arguments: played)
    assert main(["scenario", "early-cr3"]) == 5
    out = capsys.readouterr().out
    assert "- it crashes: NO" in out
    assert out.splitlines()[-1] == "Not as history says: the old way."


@pytest.mark.parametrize(("error", "code"), [(MachineError("the process died"), 4), (UsageError("no backend"), 2)])
def test_errors_have_their_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(*_arguments: object) -> Performance:
        raise error

    monkeypatch.setattr(child, "play_apart", fail)
    assert main(["scenario", "early-cr3"]) == code
    assert str(error) in capsys.readouterr().err


def die(*_: object) -> None:
    """As a library does that reads from nowhere."""
    ctypes.string_at(1, 1)


def test_a_library_that_dies_takes_only_its_own_process_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "_play", die)
    with pytest.raises(MachineError, match="the process that played this died"):
        child.play_apart("this", 0, {})


def test_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scenario", "vmi"]) == 2
    assert "no scenario 'vmi'; there are patch-in-place, " in capsys.readouterr().err
