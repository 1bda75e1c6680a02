"""What is plainly right is taken as typer takes it, without pydantic; all else is typer's, with its own errors."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from pvops_core.cli import VERBS, load_verb
from pvops_core.cli.plainly import take_plainly


class Colour(Enum):
    RED = "red"


KINDS: dict[str, tuple[Any, Any]] = {
    "text": (str, ""),
    "maybe": (str | None, None),
    "flag": (bool, False),
    "number": (Annotated[int, typer.Option(min=1, max=9)], 1),
    "any-number": (int | None, None),
    "clamped": (Annotated[int, typer.Option(min=1, max=9, clamp=True)], 1),
    "seconds": (Annotated[float, typer.Option(min=0)], 1.5),
    "place": (Path | None, None),
    "there": (Annotated[Path | None, typer.Option(exists=True)], None),
    "places": (list[Path] | None, None),
    "texts": (list[str], []),
    "numbers": (Annotated[list[int] | None, typer.Option(min=3)], None),
    "pair": (tuple[int, str], (1, "a")),
    "colour": (Colour, "red"),
    "odd": (Annotated[str, typer.Option(parser=lambda text: text[::-1])], "ab"),
    "told": (Annotated[int, typer.Option(callback=lambda value: value + 1)], 5),
    "needed": (Annotated[list[str], typer.Argument()], ...),
}


def _command(kind: Any, default: Any) -> Any:  # noqa: ANN401 - typer's types are private
    app = typer.Typer(add_completion=False)

    def verb(it: Any = default) -> Any:  # noqa: ANN401
        return repr(it)

    verb.__annotations__["it"] = kind
    app.command()(verb)
    return typer.main.get_command(app)


def _result(command: Any, words: list[str]) -> str:  # noqa: ANN401
    try:
        return str(command(args=words, prog_name="x", standalone_mode=False))
    except typer.TyperException as error:
        return f"{type(error).__name__}: {error.format_message()}"


NUMBERS = ("0", "1", "9", "10", "-3", "+4", "1_0", "0x1", "1.5", ".5", "1e3", "nan", "inf", "9" * 20, " 5", "5 ", "٣")
OTHERS = ("", "a", "red", "blue", "True", "no", ".", "/", "/nowhere", "a\0b", "\udcff", "--", "-")
WORDS = st.sampled_from([*NUMBERS, *OTHERS])


@pytest.mark.parametrize("name", KINDS)
@given(words=st.lists(WORDS, max_size=3), named=st.booleans())
def test_values_are_those_of_typer(name: str, words: list[str], named: bool) -> None:  # noqa: FBT001
    given = [part for word in words for part in ("--it", word)] if named and name != "needed" else words
    plain, typers = take_plainly(_command(*KINDS[name])), _command(*KINDS[name])
    with contextlib.suppress(ValueError):  # a NUL in a path: both let it through
        assert _result(plain, given) == _result(typers, given)


@pytest.mark.skipif(not os.geteuid(), reason="root reads everything")
def test_a_file_that_cannot_be_read_is_typers(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0)
    assert "not readable" in _result(take_plainly(_command(*KINDS["place"])), ["--it", str(secret)])


@pytest.mark.parametrize("words", [["backends"], ["boot", "/nowhere"], ["cache", "list"], ["boot", "--help"]], ids=str)
def test_commands_do_without_pydantic(words: list[str]) -> None:
    code = "import sys; from pvops_core.cli import main; main(sys.argv[1:]); assert 'pydantic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True)


@pytest.mark.parametrize("verb", VERBS)
def test_help_is_as_it_was(verb: str) -> None:
    assert "--help" in _result_of_help(load_verb(verb))


def _result_of_help(command: Any) -> str:  # noqa: ANN401
    return str(command.get_help(command.context_class(command, info_name="x")))
