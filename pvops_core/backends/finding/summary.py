"""What a plugin's source says of its backend, for those who list backends: read, not run.

The source is looked at as a reader would: the entry point's object, the class that it names as ``ops``, its bases and
their methods marked ``hookimpl``. What only running would tell is left open.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends.finding.sources import Origin, SourcePlace, Sources, UnreadableError

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.backends.finding.found import Found
    from pvops_core.backends.finding.sources import Module

_BACKEND: Final = {"pvops_core.backends.Backend", "pvops_core.backends.backend.Backend", "pvops_core.hookspecs.Backend"}
_HOOKIMPL: Final = {"pvops_core.hookspecs.hookimpl", "pvops_core.hookspecs.markers.hookimpl"}
_SETS: Final = {"frozenset", "set", "tuple", "list"}
_DEEPEST: Final = 32
"""Classes above one another; more is a circle."""


@attrs.frozen
class Summary:
    """What a source says; None where it cannot be known without running it.

    Attributes:
        name: the backend's name.
        description: its line.
        base: name of its base; None also where it has none.
        hooks: the ops that it implements itself, sorted.
        capabilities: its own capabilities, sorted.
    """

    name: str | None = None
    description: str | None = None
    base: str | None = None
    hooks: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None


def read_summary(found: Found) -> tuple[Summary, tuple[Path, ...]]:
    """Read a plugin's source, and which files that is; never fails and never imports the plugin."""
    try:
        reader = _Reader.of(found)
    except UnreadableError:
        return Summary(), ()
    hooks, capabilities = reader.hooks(), reader.texts("capabilities")
    read = Summary(
        reader.text("name"),
        reader.text("description", ""),
        reader.text("base"),
        None if hooks is None else tuple(sorted(hooks)),
        None if capabilities is None else tuple(sorted(capabilities)),
    )
    return read, tuple(reader.sources.files)


@attrs.frozen(eq=False)
class _Reader:
    sources: Sources
    module: Module
    given: Mapping[str, ast.expr]

    @classmethod
    def of(cls, found: Found) -> _Reader:
        """Find the call of ``Backend`` that the entry point's object comes from."""
        sources = Sources(found.folders)
        name, _, attribute = found.value.partition(":")
        attribute = attribute.partition("[")[0].strip()
        if found.file is None:
            module = sources.module(name.strip())
        else:
            package = name if found.file.name == "__init__.py" else ""
            if package:
                # A package is imported from the folder that it lies in.
                sources.folders = (found.file.parent.parent,)
            module = sources.read(name, found.file, package)
        place = sources.meant(SourcePlace(module, ast.Name(attribute)))
        match place:
            case SourcePlace(module, ast.Call() as call) if _is(sources, SourcePlace(module, call.func), _BACKEND):
                return cls(sources, module, {word.arg: word.value for word in call.keywords if word.arg})
        raise UnreadableError(f"{found.value} is not made by Backend(...)")

    def text(self, field: str, default: str | None = None) -> str | None:
        if field not in self.given:
            return default
        try:
            return self._constant(SourcePlace(self.module, self.given[field]))
        except UnreadableError:
            return None

    def texts(self, field: str) -> set[str] | None:
        if field not in self.given:
            return set()
        try:
            return self._set(SourcePlace(self.module, self.given[field]))
        except UnreadableError:
            return None

    def hooks(self) -> set[str] | None:
        if "ops" not in self.given:
            return set()
        try:
            marked = self._methods(SourcePlace(self.module, self.given["ops"]), 0)
        except UnreadableError:
            return None
        return {hook for hook in marked.values() if hook}

    def _constant(self, place: SourcePlace) -> str | None:
        meant = self.sources.meant(place)
        match meant:
            case SourcePlace(_, ast.Constant(value=str() | None as value)):
                return value
        raise UnreadableError("this is not a text")

    def _set(self, place: SourcePlace) -> set[str]:
        meant = self.sources.meant(place)
        match meant:
            case SourcePlace(module, ast.Set(elts=items) | ast.List(elts=items) | ast.Tuple(elts=items)):
                found = {self._constant(SourcePlace(module, item)) for item in items}
            case SourcePlace(module, ast.Call(func=ast.Name(id=name), args=items, keywords=[])) if name in _SETS:
                found = set().union(*(self._set(SourcePlace(module, item)) for item in items))
            case SourcePlace(module, ast.BinOp(left=left, op=ast.BitOr(), right=right)):
                found = {*self._set(SourcePlace(module, left)), *self._set(SourcePlace(module, right))}
            case _:
                raise UnreadableError("this is not a set that is written out")
        return {text for text in found if text is not None}

    def _methods(self, place: SourcePlace, depth: int) -> dict[str, str]:
        """Attributes of a class and its bases, each with the hook that it implements or nothing."""
        meant = self.sources.meant(place)
        match meant:
            case SourcePlace(module, ast.ClassDef() as node) if depth < _DEEPEST:
                pass
            case _:
                raise UnreadableError("this is not a class whose source is there")
        found: dict[str, str] = {}
        # As Python looks names up: the first base before the next, the class itself before all.
        for base in reversed(node.bases):
            if not (isinstance(base, ast.Name) and base.id == "object"):
                found |= self._methods(SourcePlace(module, base), depth + 1)
        return found | dict(self._own(module, node))

    def _own(self, module: Module, node: ast.ClassDef) -> Iterator[tuple[str, str]]:
        for item in node.body:
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                marks = (self._hook(module, mark, item.name) for mark in item.decorator_list)
                yield item.name, next(filter(None, marks), "")

    def _hook(self, module: Module, mark: ast.expr, name: str) -> str:
        match mark:
            case ast.Call(func=function, keywords=keywords):
                other = next((word.value for word in keywords if word.arg == "specname"), None)
                hook = name if other is None else self._constant(SourcePlace(module, other)) or name
            case _:
                function, hook = mark, name
        return hook if _is(self.sources, SourcePlace(module, function), _HOOKIMPL) else ""


def _is(sources: Sources, place: SourcePlace, names: set[str]) -> bool:
    try:
        meant = sources.meant(place)
    except UnreadableError:
        return False
    return isinstance(meant, Origin) and meant.name in names
