"""Values of options that are plainly right are taken as they are; typer itself looks at all others.

It looks at each by a validator of pydantic's, which takes 40 ms to import. What it takes, and its every error, stays
its own: here are only those values that it would give back as the type says, or ``None``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable

_WRITTEN: Final = {int: re.compile(r"-?[0-9]{1,15}"), float: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")}


class _Taken(NamedTuple):
    """A value that is right."""

    value: Any


def take_plainly(command: Any) -> Any:  # noqa: ANN401 - typer's types for this are private
    """Have a command, and those below it, take values plainly; gives the command."""
    every = command.get_params

    def get_params(ctx: Any) -> Any:  # noqa: ANN401 - likewise
        parameters = every(ctx)  # among them --help, which is made here
        for parameter in parameters:
            described = getattr(parameter, "type_descriptor", None)
            if described is not None and "process_value" not in vars(parameter):
                parameter.process_value = _processor(parameter, described)
        return parameters

    command.get_params = get_params
    for below in getattr(command, "commands", {}).values():
        take_plainly(below)
    return command


def _processor(parameter: Any, described: Any) -> Callable[[Any, Any], Any]:  # noqa: ANN401 - likewise
    otherwise, kind, rules = parameter.process_value, described.annotation, described.parameter_info
    several = parameter.multiple or parameter.nargs == -1

    def process(ctx: Any, value: Any) -> Any:  # noqa: ANN401 - likewise
        taken = _several(kind, rules, value) if several else _one(kind, rules, value)
        if value is None and not parameter.required:
            taken = _Taken(() if several else None)
        if taken is None:
            return otherwise(ctx, value)
        return parameter.callback(ctx, parameter, taken.value) if parameter.callback else taken.value

    return process


def _several(kind: Any, rules: Any, value: Any) -> _Taken | None:  # noqa: ANN401 - likewise
    if get_origin(kind) is not list or not isinstance(value, list | tuple) or not value:
        return None
    taken = [_one(get_args(kind)[0], rules, each) for each in value]
    return None if None in taken else _Taken([each.value for each in taken if each])


def _one(kind: Any, rules: Any, value: Any) -> _Taken | None:  # noqa: ANN401 - likewise
    if rules.parser is not None or (type(value) is not kind and not isinstance(value, str)):
        return None
    if kind is str or (kind is bool and isinstance(value, bool)):
        return _Taken(value)
    if kind in _WRITTEN:
        return _number(kind, rules, value)
    return _path(rules, value) if kind is Path else None


def _number(kind: type[int | float], rules: Any, value: float | str) -> _Taken | None:  # noqa: ANN401 - likewise
    if rules.clamp or (isinstance(value, str) and not _WRITTEN[kind].fullmatch(value)):
        return None
    number, least, most = kind(value), rules.min, rules.max
    return _Taken(number) if (least is None or least <= number) and (most is None or number <= most) else None


def _path(rules: Any, value: Path | str) -> _Taken | None:  # noqa: ANN401 - likewise
    asked = rules.exists or rules.resolve_path or rules.writable or rules.path_type is not None
    if asked or not (rules.file_okay and rules.dir_okay) or "\0" in str(value):
        return None
    unreadable = rules.readable and os.path.exists(value) and not os.access(value, os.R_OK)  # noqa: PTH110 - a text
    return None if unreadable else _Taken(Path(value))
