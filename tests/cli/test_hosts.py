"""A host whose engine keeps its state where pvops does not find it, as another architecture's may."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pvops_core.cli import main
from pvops_core.machine.unicorn import probe

pytest_plugins = ["pytester"]
ALIEN = """
import platform
from pvops_core.backends import API, Backend
from pvops_core.kinds import MachineKind
from pvops_core.machine.unicorn import probe

found = probe._observe

def elsewhere():
    kernel, user, events = found()
    return bytes(len(kernel)), user, events

probe._observe = elsewhere
platform.machine = lambda: "aarch64"
backend = Backend(name="alien", api=API, base="native", kinds=frozenset(MachineKind))
"""
SAID = (
    "HostError: Unicorn 2.1.4 on this host (aarch64) is not one that pvops knows: 0 words of its CPU state look like "
    "the hidden flags, not one. It knows the builds for x86_64 Linux that its distribution on PyPI has; no guest can "
    "run here"
)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As if on that host: what loads it there finds another engine, this process as well."""
    probe.context_layout.cache_clear()  # a test before may have found it
    monkeypatch.setattr(probe, "_observe", probe._observe)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    file = tmp_path / "alien.py"
    file.write_text(ALIEN)
    yield file
    probe.context_layout.cache_clear()


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", ["--backend", "alien"]),
        ("boot", ["KERNEL", "--memory", "32", "--backend", "alien"]),
        ("compare", ["--backends", "alien", "--layouts", "6.1-64"]),
        ("prove", ["--backend", "alien", "--kernel", "KERNEL"]),
    ],
)
def test_every_verb_that_runs_a_guest_refuses_with_the_reason(
    verb: str, words: list[str], plugin: Path, kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(kernel) if word == "KERNEL" else word for word in words]
    assert main([verb, *given, "--plugin", str(plugin)]) == 4
    out, err = capsys.readouterr()
    said = " ".join(f"{out} {err}".split())
    assert SAID.removeprefix("HostError: ") in said
    assert "Traceback" not in said


def test_a_scenario_refuses_with_the_reason(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVOPS_PLUGINS", str(plugin))
    assert main(["scenario", "patch-in-place"]) == 4
    assert SAID.removeprefix("HostError: ") in " ".join(capsys.readouterr().err.split())


def test_a_test_fails_with_the_reason(plugin: Path, pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(call): pass")
    words = ("-p", "no:cacheprovider", "--pvops-backend", "alien", "--pvops-plugin", str(plugin))
    result = pytester.runpytest_subprocess(*words)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert SAID.removeprefix("HostError: ") in " ".join(result.stdout.str().split())


def test_verbs_that_run_none_do_not_ask(plugin: Path, kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sites", str(kernel), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"].startswith("pvops.sites/")
    assert main(["patch", str(kernel), "--backend", "native"]) == 0
    assert main(["backends", "--plugin", str(plugin)]) == 0
    assert "HostError" not in capsys.readouterr().out
