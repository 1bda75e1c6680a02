"""A plugin that is known to be broken is named, and keeps nobody else from running."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.backends.loading.loader import load_needed
from pvops_core.cli import main
from pvops_core.errors import PluginError
from tests.backends.conftest import ONLY_HERE, Shelf

BROKEN = {
    "ends": "import os\nos._exit(0)",
    "hangs": "while True:\n    pass",
    "alarms": "import signal\nsignal.alarm(1)",
    "timers": "import signal\nsignal.setitimer(signal.ITIMER_REAL, 1, 1)",
}
DECLARES = "\nfrom pvops_core.backends import API, Backend\nbackend = Backend(name='{}', api=API, base='native')\n"


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("verb", ["run", "boot"])
def test_a_broken_plugin_stops_no_other(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.session.selfpatching import SelfPatching  # noqa: PLC0415

    plugin, kernel = tmp_path / f"{name}.py", tmp_path / "vmlinux"
    plugin.write_text(BROKEN[name] + DECLARES.format(name))
    kernel.write_bytes(SelfPatching.of().build().data)
    monkeypatch.setenv("PVOPS_PLUGINS", str(plugin))
    monkeypatch.setenv("PVOPS_PLUGIN_TIMEOUT", "3")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    words = ["run", "--layout", "6.1-64"] if verb == "run" else ["boot", str(kernel), "--memory", "32"]
    assert main([*words, "--max-seconds", "60"]) == 0
    captured = capsys.readouterr()
    assert "outcome             poweroff" in captured.out
    assert (f"broken plugin: {plugin}" in captured.err) == (verb == "run" and name in {"ends", "hangs"})


def test_an_alarm_that_a_plugin_sets_does_not_ring(shelf: Shelf) -> None:
    shelf.put("alarms", f"{BROKEN['alarms']}\nbackend = make('alarms')", entries={"alarms": "alarms:backend"})
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _frame: rang.append(number))
    try:
        assert "alarms" in load_backends(environ=ONLY_HERE).backends
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        signal.alarm(20)
        shelf.put("alarms2", f"{BROKEN['alarms']}\nbackend = make('alarms2')", entries={"alarms2": "alarms2:backend"})
        load_backends(environ=ONLY_HERE)
        assert 15 < signal.getitimer(signal.ITIMER_REAL)[0] <= 20  # the host's own runs on
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert not rang


def test_what_a_handler_of_the_hosts_raises_is_not_the_plugins(shelf: Shelf) -> None:
    """As pytest-timeout's does, while a plugin is slow."""

    class TooLongError(Exception):
        pass

    def handler(_number: int, _frame: object) -> None:
        raise TooLongError

    shelf.put("slow", "import time\ntime.sleep(30)\nbackend = make('slow')", entries={"slow": "slow:backend"})
    before = signal.signal(signal.SIGALRM, handler)
    begun = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(TooLongError):
            load_backends(environ=ONLY_HERE | {"PVOPS_PLUGIN_TIMEOUT": "0"})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize(
    "raised", ["class E(Exception):\n    def __str__(self): raise SystemExit(9)\nraise E", "raise GeneratorExit"]
)
def test_whatever_an_import_raises_is_the_plugins(shelf: Shelf, raised: str) -> None:
    shelf.put("odd", raised, entries={"odd": "odd:backend"})
    (error,) = load_backends(environ=ONLY_HERE | {"PVOPS_PLUGIN_TIMEOUT": "0"}).errors
    assert isinstance(error, PluginError)
    assert "loading it raised " in error.message


def test_an_empty_folder_of_metadata_hides_nothing(shelf: Shelf) -> None:
    shelf.put("good", "backend = make('good')")
    (shelf.folder / "good-0.0.1.dist-info").mkdir()
    assert "good" in load_backends(environ=ONLY_HERE).backends


def test_what_is_not_needed_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = tmp_path / "loud.py"
    plugin.write_text("raise RuntimeError")
    monkeypatch.setenv("PVOPS_PLUGINS", str(plugin))
    loaded = load_needed("xen")
    assert set(loaded.backends) == {"xen", "native"}
    assert not loaded.errors
    assert load_needed("nobody").errors
    assert not load_needed("nobody", without=[error.plugin for error in load_needed("nobody").errors]).errors


@pytest.mark.parametrize("given", ["file", "folder"])
def test_a_broken_plugin_given_by_path_counts(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "bad.py").write_text("raise ValueError('bad')")
    (folder / "pyproject.toml").write_text(
        "[project]\nname = 'pvops-bad'\nversion = '1'\n[project.entry-points.'pvops.backends']\nbad = 'bad:backend'\n"
    )
    path = folder if given == "folder" else folder / "bad.py"
    target = tmp_path / "compare.json"
    options = ["--backends", "native", "--layouts", "6.1-64", "--plugin", str(path), "--json", str(target)]
    assert main(["compare", *options]) == 4
    assert json.loads(target.read_text())["exit_code"] == 4
    assert main(["run", "--layout", "6.1-64", "--plugin", str(path)]) == 4
    assert "broken plugin" in capsys.readouterr().err
