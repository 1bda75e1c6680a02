"""``--set``: a setting reaches the runs of the backends that have it, and a wrong one is refused before any run."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main
from pvops_core.session import Session
from pvops_core.testing.images import ElfBuilder, make_bzimage

RUN = ["run", "--layout", "6.1-64"]
COMPARE = ["compare", "--backends", "native,xen", "--layouts", "6.1-64", "--jobs", "1"]


def bare_kernel(folder: Path) -> Path:
    """A kernel that would hang: nothing runs it."""
    builder = ElfBuilder(64, 0x1000000)
    builder.symbol("start", builder.text(".text", b"\xeb\xfe"))
    (folder / "vmlinuz").write_bytes(make_bzimage(builder.build()))
    return folder / "vmlinuz"


def test_a_run_is_what_was_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = []
    for extra in ([], ["--set", "rtc=0x20"]):
        target = tmp_path / "run.json"
        assert main([*RUN, "--backend", "xen", "--json", str(target), "--set", "cpu=x86-64-v1", *extra]) == 0
        documents.append(json.loads(target.read_text()))
    capsys.readouterr()
    assert [each["options"] for each in documents] == [{"cpu": "x86-64-v1"}, {"cpu": "x86-64-v1", "rtc": "0x20"}]
    assert documents[0]["results"] == documents[1]["results"]


def test_a_comparison_gives_a_setting_to_those_that_have_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "compare.json"
    assert main([*COMPARE, "--set", "rtc=9", "--set", "event_channels=64", "--json", str(target)]) == 0
    capsys.readouterr()
    document = json.loads(target.read_text())
    found = {run["backend"]: run["options"] for run in document["cells"]}
    assert found == {"native": {"rtc": "9"}, "xen": {"rtc": "9", "event_channels": "64"}}
    words = shlex.split(document["command"])
    assert [words[at + 1] for at, word in enumerate(words) if word == "--set"] == ["rtc=9", "event_channels=64"]


@pytest.mark.parametrize("verb", [[*RUN, "--backend", "native"], COMPARE, ["boot", "--backend", "native"]])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rtx=5", "setting rtx='5': no setting 'rtx'; there are"),
        ("rtc=noon", "setting rtc='noon': a number from 0 to"),
        ("rtc", "setting 'rtc' is not NAME=VALUE"),
        ("cpu=max,+avx", "setting cpu='max,+avx': the engine has no feature 'avx'"),
    ],
)
def test_a_wrong_setting_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: list[str], text: str, told: str
) -> None:
    kernel = [str(bare_kernel(tmp_path))] if verb[0] == "boot" else []
    assert main([*verb, *kernel, "--set", text]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert "Traceback" not in printed.err
    assert not printed.out


def test_backends_list_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends", "--json", "-"]) == 0
    assert {row["settings"] for row in json.loads(capsys.readouterr().out)["backends"]} == {None}
    assert main(["backends", "--check", "--json", "-"]) == 0
    rows = {row["name"]: row["settings"] for row in json.loads(capsys.readouterr().out)["backends"]}
    channels = next(each for each in rows["xen"] if each["name"] == "event_channels")
    assert (channels["type"], channels["default"], channels["least"], channels["most"]) == ("int", "1023", 1, 131071)
    assert "abi" in {each["name"] for each in rows["lguest"]}
    assert main(["backends", "--check"]) == 0
    assert "event_channels  xen " in capsys.readouterr().out


def test_live_patches_and_scenarios_are_given_settings_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script"
    script.write_text("1ms list\n")
    given, made = [], Session.__init__

    def note(session: Session, *arguments: Any, **settings: Any) -> None:  # noqa: ANN401
        given.append(settings["options"])
        made(session, *arguments, **settings)

    monkeypatch.setattr(Session, "__init__", note)
    assert main(["livepatch", "run", str(script), "--layout", "6.1-64", "--set", "rtc=5"]) == 0
    assert given == [{"rtc": "5"}]
    assert main(["scenario", "early-cr3", "--set", "rtc=5", "--set", "event_channels=64"]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("verb", [["livepatch", "run", "/dev/null"], ["scenario", "early-cr3"]])
def test_they_refuse_what_no_platform_has(capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert main([*verb, "--set", "rtx=5"]) == 2
    assert "setting rtx='5': no setting 'rtx'" in capsys.readouterr().err
