"""Which backends were found sound: that follows from their sources and ours, and finding it takes a worker 30 ms.

What else a verdict may depend on is part of its name: a plugin may make hooks one way here and another way there.
"""

from __future__ import annotations

import hashlib
import sys
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

import pluggy

from pvops_core.hookspecs import PROJECT
from pvops_core.kept import Kept
from pvops_core.sources import source_hashes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.backends.backend import Backend
    from pvops_core.backends.finding.found import Found

_KEPT: Final = Kept("verdicts", (), 256)
_SOUND: Final = b"sound"
_MARK: Final = f"{PROJECT}_impl"
"""Where pluggy keeps the options of a hook."""
_NO_SOURCES: Final = hashlib.sha256().hexdigest()


class Soundness:
    """What was found of a backend.

    Attributes:
        sound: it was found sound, as it is.
    """

    def __init__(self, found: Found, backend: Backend) -> None:
        try:
            self._name = _name(found, backend)
        except (AttributeError, TypeError, ValueError):
            self._name = ""  # it is not as it should be, which is to be told
        self.sound = bool(self._name) and _KEPT.read(self._name) == (_SOUND, b"")

    def keep(self) -> None:
        """It was found sound."""
        if self._name:
            _KEPT.write(self._name, _SOUND, b"")


def _name(found: Found, backend: Backend) -> str:
    """Empty where sources do not tell what it is made by."""
    modules = [found.value.partition(":")[0].strip()] if found.file is None else []
    modules += [kind.__module__ for kind in (backend.ops, backend.platform) if kind is not None]
    sources = source_hashes(modules)
    if _NO_SOURCES in sources.values():
        return ""
    told = (
        *(sys.version, pluggy.__version__, found.key, found.version, found.name, sorted(sources.items())),
        *(sorted(map(str, each)) for each in (backend.kinds, backend.nops, backend.empty)),
        [_patchlet(each) for each in backend.patchlets],
        [] if backend.ops is None else list(_functions(backend.ops)),
    )
    return hashlib.sha256(repr(told).encode("utf-8", "surrogateescape")).hexdigest()


def _patchlet(each: Any) -> tuple[object, ...]:  # noqa: ANN401 - it may be anything yet
    told = each.asm, each.code, int(each.clobbers), sorted(each.layouts), each.where_it_fits, tuple(each.keeping)
    return type(each).__qualname__, each.op, *told


def _functions(ops: type) -> Iterator[tuple[object, ...]]:
    """What makes each attribute of a class a hook, or none; nothing of the plugin's is executed for it."""
    for kind in ops.__mro__[:-1]:
        for name, value in vars(kind).items():
            function: Any = value.__func__ if isinstance(value, staticmethod | classmethod) else value
            yield kind.__qualname__, name, type(value).__qualname__, type(function).__qualname__
            while isinstance(function, FunctionType):
                code, marks = function.__code__, vars(function)
                arguments = code.co_argcount + code.co_kwonlyargcount
                yield code.co_filename, code.co_firstlineno, code.co_flags, code.co_posonlyargcount, code.co_argcount
                yield *code.co_varnames[:arguments], bool(function.__defaults__), bool(function.__kwdefaults__)
                yield *sorted(marks), repr(marks.get(_MARK)) if type(marks.get(_MARK)) is dict else ""
                function = marks.get("__wrapped__")
