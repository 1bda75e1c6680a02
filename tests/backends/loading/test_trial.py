"""Plugins that hang, end the process or upset it while they are loaded: the host lives, names them, and goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

import pytest

from pvops_core.backends import discover, load_backends
from pvops_core.backends.loading import trial
from pvops_core.cli import main
from pvops_core.errors import UsageError
from tests.backends.conftest import ONLY_HERE, Shelf

GOOD = "backend = make('good')"

ENDING = {
    "quits the process": ("import os\nos._exit(0)", "exit status 0"),
    "quits it with a status": ("import os\nos._exit(3)", "exit status 3"),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL"),
    "a crash in native code": ("import ctypes\nctypes.string_at(0)", "killed by SIGSEGV"),
    "an abort": ("import os\nos.abort()", "killed by SIGABRT"),
    "an unknown signal": ("import os\nos.kill(os.getpid(), 40)", "killed by"),
    "closes every file": ("import os\nos.closerange(0, 1024)", "exit status 1"),
    "replaces the program": ("import os\nos.execv('/bin/true', ['true'])", "exit status 0"),
}

HANGING = {
    "sleeps for ever": "import time\nwhile True:\n    try: time.sleep(1000)\n    except BaseException: pass",
    "loops for ever": "while True: pass",
    "waits for itself": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "computes for ever in one step": "10 ** 10 ** 10",
    "waits for a child of its own": "import subprocess\nsubprocess.run(['sleep', '1000'])",
    "stops itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
}

HARMLESS = {
    "prints a lot": "print('x' * (1 << 22))",
    "writes to the terminal below Python": "import os\nos.write(1, b'x' * (1 << 22))",
    "forks": "import os\nif not os.fork(): os._exit(7)",
    "a thread that ends": "import threading\nthreading.Thread(target=lambda: None).start()",
    "a daemon thread": "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
}


def _tried(tmp_path: Path, seconds: str) -> dict[str, str]:
    return {"PVOPS_DISABLE_PLUGINS": "pvops-*", "PVOPS_PLUGIN_TIMEOUT": seconds, "XDG_CACHE_HOME": str(tmp_path)}


def test_those_that_end_the_process_are_named_and_the_others_go_on(shelf: Shelf, tmp_path: Path) -> None:
    for number, (code, _message) in enumerate(ENDING.values()):
        shelf.put(f"bad-{number}", f"{code}\n{GOOD}", entries={f"bad{number}": f"bad_{number}:backend"})
    shelf.put("the-good-one", GOOD)
    loaded = load_backends(environ=_tried(tmp_path, "60"))
    assert list(loaded.backends) == ["good"]
    told = {error.distribution: error for error in loaded.errors}
    for number, (kind, (_code, message)) in enumerate(ENDING.items()):
        error = told[f"bad-{number}"]
        assert "loading it ended the process: " in error.message, kind
        assert message in error.message, kind
        assert f"PVOPS_DISABLE_PLUGINS=bad-{number}" in error.message
        assert str(error).startswith(f"bad-{number} 1.2.3, entry point bad{number} = bad_{number}:backend")


def test_those_that_hang_are_cut_off_and_named(shelf: Shelf, tmp_path: Path) -> None:
    for number, code in enumerate(HANGING.values()):
        shelf.put(f"bad-{number}", f"{code}\n{GOOD}", entries={f"bad{number}": f"bad_{number}:backend"})
    shelf.put("the-good-one", GOOD)
    loaded = load_backends(environ=_tried(tmp_path, "1.5"))
    assert list(loaded.backends) == ["good"]
    assert {error.distribution for error in loaded.errors} == {f"bad-{number}" for number in range(len(HANGING))}
    for error in loaded.errors:
        assert "did not come to an end within 1.5 s" in error.message, error


def test_what_only_looks_bad_is_loaded(shelf: Shelf, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, code in enumerate(HARMLESS.values()):
        shelf.put(
            f"odd-{number}", f"{code}\nbackend = make('odd{number}')", entries={f"odd{number}": f"odd_{number}:backend"}
        )
    errors = trial.tried(_found(tmp_path), _tried(tmp_path, "60"))
    assert not errors
    assert capfd.readouterr() == ("", "")


def _found(tmp_path: Path) -> list[trial.Found]:
    return discover(environ=_tried(tmp_path, "60"))


def test_threads_that_go_on_are_refused(shelf: Shelf, tmp_path: Path) -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, name='mill').start()"
    shelf.put("the-busy-one", f"{code}\n{GOOD}")
    (error,) = load_backends(environ=_tried(tmp_path, "60")).errors
    assert "it left threads running: mill" in error.message


def test_an_error_in_the_trial_is_the_error(shelf: Shelf, tmp_path: Path) -> None:
    module = shelf.put("the-bad-one", "backend = make('good', nops={'halted'})")
    (error,) = load_backends(environ=_tried(tmp_path, "60")).errors
    assert (error.hook, error.version) == ("halted", "1.2.3")
    assert module not in sys.modules, "what failed in the trial is not run here"


def test_one_that_went_through_is_not_tried_again_until_it_changes(shelf: Shelf, tmp_path: Path) -> None:
    environ = _tried(tmp_path, "60")
    count = tmp_path / "count"
    code = f"with open({str(count)!r}, 'a') as file: file.write('x')\n{GOOD}"
    module = shelf.put("the-good-one", code)
    trial.tried(_found(tmp_path), environ)
    trial.tried(_found(tmp_path), environ)
    assert count.read_text() == "x"
    os.utime(shelf.folder / f"{module}.py", ns=(1, 1))
    trial.tried(_found(tmp_path), environ)
    assert count.read_text() == "xx"


@pytest.mark.parametrize("notes", [b"", b"[1]", b'{"a": 1}', b"\xff", b"[" * 100000])
def test_notes_that_make_no_sense_are_no_harm(shelf: Shelf, tmp_path: Path, notes: bytes) -> None:
    file = tmp_path / "pvops" / "plugins.json"
    file.parent.mkdir()
    file.write_bytes(notes)
    shelf.put("the-good-one", GOOD)
    assert not trial.tried(_found(tmp_path), _tried(tmp_path, "60"))
    assert len(json.loads(file.read_text())) == 1


def test_without_a_place_for_notes_it_is_tried_each_time(shelf: Shelf, tmp_path: Path) -> None:
    shelf.put("the-good-one", GOOD)
    (tmp_path / "file").touch()
    for folder in ("", str(tmp_path / "file")):
        environ = _tried(tmp_path, "60") | {"XDG_CACHE_HOME": folder}
        assert list(load_backends(environ=environ).backends) == ["good"]


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "1e300"])
def test_a_limit_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="PVOPS_PLUGIN_TIMEOUT"):
        load_backends(environ={"PVOPS_PLUGIN_TIMEOUT": text})


def test_the_command_says_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PVOPS_DISABLE_PLUGINS", "pvops-*")
    monkeypatch.setenv("PVOPS_PLUGIN_TIMEOUT", "soon")
    assert main(["backends", "--check"]) == 2
    assert "'soon' is not a number of seconds" in capsys.readouterr().err
    monkeypatch.setenv("PVOPS_PLUGIN_TIMEOUT", "60")
    file = tmp_path / "bad.py"
    file.write_text("import os\nos._exit(0)")
    assert main(["backends", "--check", "--plugin", str(file)]) == 4
    assert f"{file}, entry point bad:backend: loading it ended the process" in capsys.readouterr().err


MEDDLING = {
    "environment": "import os\nos.environ['PVOPS_MINE'] = '1'\nos.environ.pop('PATH')\nos.environ['HOME'] = '/'",
    "current folder": "import os\nos.chdir('/')",
    "signal handlers": "from signal import *\nsignal(SIGTERM, SIG_IGN)\nsignal(SIGINT, print)",
    "import path": "import sys\nsys.path.clear()",
    "streams": "import sys\nsys.stdout = sys.stderr = sys.stdin = None\nsys.excepthook = print",
    "warning filters": "import warnings\nwarnings.simplefilter('ignore')",
    "recursion limit": "import sys\nsys.setrecursionlimit(5000)",
}


def _process() -> list[object]:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    streams = [sys.stdin, sys.stdout, sys.stderr, sys.excepthook]
    filters = list(warnings.filters)
    return [dict(os.environ), Path.cwd(), handlers, list(sys.path), streams, filters, sys.getrecursionlimit()]


@pytest.mark.parametrize("kind", MEDDLING)
@pytest.mark.parametrize("end", [GOOD, "raise SystemExit"], ids=["loaded", "failed"])
def test_what_it_changes_of_the_process_is_put_back(shelf: Shelf, kind: str, end: str) -> None:
    shelf.put("the-rude-one", f"{MEDDLING[kind]}\n{end}")
    before = _process()
    loaded = load_backends(environ=ONLY_HERE)
    assert _process() == before
    assert len(loaded.errors) == (end != GOOD)


def test_folders_it_adds_to_the_import_path_stay(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    shelf.put("the-good-one", f"import sys\nsys.path.append('/its/own')\n{GOOD}")
    load_backends(environ=ONLY_HERE)
    assert "/its/own" in sys.path


def test_it_may_be_loaded_from_a_folder_that_is_gone_and_in_any_thread(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.put("the-good-one", GOOD)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(load_backends(environ=ONLY_HERE).backends))
    thread.start()
    thread.join()
    assert found == ["good"]
