"""Scripts and the prompt: what they say of errors, and how they end."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pvops_core.errors import UsageError
from pvops_core.prompt.console import open_prompt, run_script

if TYPE_CHECKING:
    from pvops_core.session import Session


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 0),
        ("import sys; sys.exit()", 0),
        ("raise SystemExit(7)", 7),
        ("raise SystemExit('no')", 1),
        ("1/0", 1),
        ("(", 1),
    ],
)
def test_a_script_has_an_exit_code(session: Session, text: str, code: int) -> None:
    assert run_script(session, text, "<script>") == code


def test_a_script_has_the_names(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(session, "def f():\n    return where()\nprint(f())", "<script>") == 0
    assert capsys.readouterr().out.startswith("vcpu 0 at ")


def test_what_pvops_refuses_is_raised(session: Session) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        run_script(session, 'read("nowhere")', "<script>")


def test_a_traceback_is_the_scripts_own(session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    run_script(session, "def f():\n    step('x')\nf()", "<script>")
    told = capsys.readouterr().err
    assert 'File "<script>", line 2, in f\n    step(' in told
    assert "pvops_core" not in told


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython is not installed."""
    monkeypatch.setitem(sys.modules, "IPython", None)
    monkeypatch.setitem(sys.modules, "IPython.terminal.embed", None)


@pytest.mark.usefixtures("plain")
def test_a_prompt_takes_lines_and_tells_errors(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = iter(["where()", 'read("nowhere")', "1/0", "more", "exit()"])
    asked: list[str] = []

    def typed(prompt: str = "") -> str:
        asked.append(prompt)
        return next(lines)

    monkeypatch.setattr(builtins, "input", typed)
    open_prompt(session, more=5)
    seen = capsys.readouterr()
    assert "'vcpu 0 at " in seen.out
    assert "\n5\n" in seen.out
    assert "Names: session vcpus run" in seen.err
    assert "pvops: " in seen.err
    assert "no symbol 'nowhere'" in seen.err
    assert 'File "<prompt>", line 1, in <module>\nZeroDivisionError' in seen.err
    assert asked[0] == ">>> "
    assert not hasattr(builtins, "_")


class _Shell:
    """As much of IPython's as is used."""

    made: list[_Shell] = []  # noqa: RUF012

    def __init__(self, **settings: object) -> None:
        self.settings, self.Completer = settings, self
        self.custom_matchers: list[Any] = []
        self.line_buffer = 'read("start_k'
        self.made.append(self)

    def set_custom_exc(self, kinds: tuple[type[BaseException], ...], handler: Callable[..., None]) -> None:
        self.kinds, self.handler = kinds, handler

    def __call__(self) -> None:
        self.found = self.custom_matchers[0]("start_k")
        error = UsageError("not so")
        assert isinstance(error, self.kinds)
        self.handler(self, type(error), error, None)


def test_ipython_is_taken_where_it_is(
    session: Session, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    embed = type(sys)("IPython.terminal.embed")
    embed.InteractiveShellEmbed = _Shell  # type: ignore[attr-defined]
    for name in ("IPython", "IPython.terminal"):
        monkeypatch.setitem(sys.modules, name, type(sys)(name))
    monkeypatch.setitem(sys.modules, "IPython.terminal.embed", embed)
    open_prompt(session)
    assert _Shell.made[-1].found == ["start_kernel"]
    assert "where" in _Shell.made[-1].settings["user_ns"]
    assert capsys.readouterr().err == "pvops: not so\n"
