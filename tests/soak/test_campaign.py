"""Rounds, in turn and alone; what takes its process with it; the line that makes a round again."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from soak import campaign, ledger
from soak.__main__ import app
from soak.attackers import ATTACKERS, play
from soak.tally import Tally

if TYPE_CHECKING:
    from pvops_core.child.limits import Limits

Play = Callable[[str, int], Tally]


def odd_is_wrong(name: str, seed: int) -> Tally:
    if name == "dies":
        os.kill(os.getpid(), 9)
    return Tally(seed, [f"{name} of {seed}\x1b"] if seed % 2 else [], skipped="no kernels" if name == "skips" else "")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds are made by the function above, in this process."""

    def called(_play: Play, name: str, seed: int, *, limits: Limits) -> Tally:
        assert limits is campaign.LIMITS
        return odd_is_wrong(name, seed)

    monkeypatch.setattr(campaign, "call_apart", called)


@pytest.mark.usefixtures("here")
def test_rounds_have_seeds_in_order_and_what_is_wrong_can_be_made_again(capsys: pytest.CaptureFixture[str]) -> None:
    (attack,) = campaign.campaign(["a"], 2, most=3)
    assert (attack.rounds, attack.tally.count, attack.seed) == (3, 2 + 3 + 4, 5)
    assert attack.tally.wrong == ["a of 3\x1b"]
    said = capsys.readouterr().out
    assert "a of 3\\x1b\n  again: python -m soak --only a --seed 3 --rounds 1\n" in said


@pytest.mark.usefixtures("here")
def test_each_has_one_round_and_who_cannot_has_no_more() -> None:
    made = campaign.campaign(["skips", "a", "b"], 0, seconds=1e-9)
    assert [attack.rounds for attack in made] == [1, 1, 1]
    made = campaign.campaign(["skips", "a"], 0, most=5)
    assert [attack.rounds for attack in made] == [1, 5]


def test_a_round_that_takes_its_process_with_it_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "play", odd_is_wrong)
    (attack,) = campaign.campaign(["dies"], 0, most=1)
    assert attack.tally.wrong == ["the round's process was lost: killed by SIGKILL"]


@pytest.mark.usefixtures("here")
def test_what_was_done_is_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger"
    add = ledger.add
    monkeypatch.setattr(ledger, "add", lambda name, count, **more: add(name, count, path=path, **more))
    keys = campaign.keys(["images"])
    campaign.enter(campaign.campaign(["images"], 4, most=1), 4, keys)
    campaign.enter(campaign.campaign(["images"], 3, most=1), 3, keys)
    campaign.enter(campaign.campaign(["images"], 2, most=1), 2, {"images": "of another day"})
    assert [(each.count, each.seed, each.result) for each in ledger.read(path)] == [
        (4, 4, ledger.SOUND),
        (3, 3, "1 wrong, first: images of 3\x1b"),
    ]


@pytest.mark.usefixtures("here")
def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(campaign, "enter", lambda *_: pytest.fail("not asked for"))
    run = CliRunner().invoke
    assert run(app, ["--only", "images", "--seed", "2", "--rounds", "1"]).exit_code == 0
    done = run(app, ["--only", "images", "--only", "switches", "--seed", "2", "--rounds", "2"])
    assert done.exit_code == 1
    assert "switches: 5 in 2 rounds" in done.stdout
    assert run(app, ["--only", "nobody"]).exit_code == 2
    assert "images: " in run(app, ["ledger"]).stdout


def test_every_attacker_has_a_bar_and_plays() -> None:
    assert ATTACKERS.keys() <= ledger.bars().keys()
    folder = Path(campaign.__file__).with_name("attackers")
    assert {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--"} == ATTACKERS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["images", "hypercalls"])
def test_a_round_is_of_its_seed_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PVOPS_KERNELS", raising=False)
    first = play(name, 5)
    assert first.count > 100
    assert first.wrong == []
    assert play(name, 5) == first
