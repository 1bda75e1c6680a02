"""``pvops run``: one guest on one backend, and that it is the same run every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pvops_core.cli import main


def run(hash_seed: str, *arguments: str) -> dict[str, Any]:
    """The document of a run in a process of its own with its own order of sets."""
    code = "import sys; from pvops_core.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "run", "--json", "-", *arguments]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_run_shows_its_console_and_what_it_was_made_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, events = tmp_path / "run.json", tmp_path / "events"
    arguments = ["--layout", "2.6.24", "--backend", "lguest", "--json", str(target), "--events", str(events)]
    assert main(["run", *arguments]) == 0
    document = json.loads(target.read_text())
    assert document["schema"] == "pvops.run/1"
    assert (document["outcome"], document["backend"], document["layout"]) == ("poweroff", "lguest", "2.6.24")
    out = capsys.readouterr().out
    assert out.startswith(document["console"])
    assert document["console"].startswith("guest: 2.6.24 starts, 4096 pages\n")
    assert f"digest {document['results']['digest']}" in out
    assert document["event_log_sha256"] in out
    assert document["counts"]["ops"]["set_pte"] > 0
    assert f"hypercalls          {sum(document['counts']['hypercalls'].values()):,} (" in out
    logged = [json.loads(line) for line in events.read_text().splitlines()]
    assert logged
    assert [event["ns"] for event in logged] == sorted(event["ns"] for event in logged)


@pytest.mark.parametrize(
    "arguments",
    [["--layout", "2.6.23-lapic-pae", "--backend", "xen"], ["--layout", "2.6.24", "--cpus", "2", "--seed", "9"]],
)
def test_the_same_seed_gives_the_same_run_in_every_process(arguments: list[str]) -> None:
    first, second = (run(hash_seed, *arguments) for hash_seed in ("1", "4242"))
    for document in (first, second):
        assert document.pop("wall_s") > 0
        assert document["outcome"] == "poweroff"
    assert first == second


def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "--backend", "vmi"]) == 2
    assert "no backend 'vmi'; there are" in capsys.readouterr().err
    assert main(["run", "--layout", "2.4"]) == 2
    assert "no layout '2.4'; there are" in capsys.readouterr().err
    assert main(["run", "--backend", "lguest", "--layout", "6.1-64"]) == 2
    assert "'lguest' cannot run layout 6.1-64: its machine kinds are i386" in capsys.readouterr().err
    assert main(["run", "--events", str(tmp_path / "none" / "events")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err


def test_a_guest_that_no_memory_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--memory", str(1 << 20)]) == 4
    out = capsys.readouterr().out
    assert "memory" in out
    assert "Traceback" not in out


def test_a_broken_backend_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = tmp_path / "pvops_bad-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pvops-bad\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[pvops.backends]\nbad = no_such_module:backend\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["run", "--backend", "bad"]) == 4
    assert "pvops-bad 1.0, entry point bad = no_such_module:backend" in capsys.readouterr().err
