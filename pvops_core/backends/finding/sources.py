"""Python sources as syntax trees: which module is where, and what its names stand for. Nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

LARGEST: Final = 4 << 20
"""Bytes of a source that is still read."""
_OURS: Final = "pvops_core"
_STEPS: Final = 32
"""Names that one name may lead through; more is a circle."""


class UnreadableError(Exception):
    """What is looked for is not to be had without running the source."""


@attrs.frozen
class Origin:
    """Something that is defined outside the sources that are read: a name of ours, by its full name."""

    name: str


@attrs.frozen(eq=False)
class SourcePlace:
    """A piece of syntax, with the module whose names it uses."""

    module: Module
    node: ast.AST


@attrs.frozen(eq=False)
class Module:
    """A module that was read.

    Attributes:
        name: its full name.
        names: what its top level binds, each to the statement that does it last.
        package: the package that relative imports start from.
    """

    name: str
    names: dict[str, ast.stmt]
    package: str


@attrs.define(eq=False)
class Sources:
    """Modules by name, read when they are asked for.

    Attributes:
        folders: folders to look in before the import path.
        files: those that were read.
    """

    folders: Sequence[Path] = ()
    files: list[Path] = attrs.field(factory=list, init=False)
    _modules: dict[str, Module] = attrs.field(factory=dict, init=False)

    def module(self, name: str) -> Module:
        """The module of a name.

        Raises:
            UnreadableError: it has no source, or one that does not parse.
        """
        if name not in self._modules:
            spec = self._spec(name)
            if spec.origin is None or not spec.origin.endswith(".py"):
                raise UnreadableError(f"{name} has no source")
            package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
            self.read(name, Path(spec.origin), package)
        return self._modules[name]

    def read(self, name: str, file: Path, package: str) -> Module:
        """Read a file as the module of that name."""
        self.files.append(file)
        try:
            if file.stat().st_size > LARGEST:
                raise UnreadableError(f"{file} is too large")
            tree = ast.parse(file.read_bytes(), str(file))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UnreadableError(f"{file}: {type(error).__name__}: {error}") from error
        made = self._modules[name] = Module(name, dict(_bound(tree.body)), package)
        return made

    def _spec(self, name: str) -> ModuleSpec:
        top, *below = name.split(".")
        spec = PathFinder.find_spec(top, list(map(str, self.folders))) or _installed(top)
        for part in below:
            if spec is None or spec.submodule_search_locations is None:
                raise UnreadableError(f"there is no module {name}")
            # By its own name: one that is a namespace package would ask for its parent, which nobody has imported.
            spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
        if spec is None:
            raise UnreadableError(f"there is no module {name}")
        return spec

    def meant(self, place: SourcePlace) -> SourcePlace | Origin:
        """What an expression stands for, names and attributes of modules followed to where they are defined.

        Raises:
            UnreadableError: only running the module would tell.
        """
        for _ in range(_STEPS):
            match place.node:
                case ast.Name() | ast.Attribute():
                    found = self._named(place.module, _parts(place.node))
                case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                    found = SourcePlace(place.module, value)
                case _:
                    return place
            if isinstance(found, Origin):
                return found
            place = found
        raise UnreadableError("a name leads back to itself")

    def _named(self, module: Module, parts: Sequence[str]) -> SourcePlace | Origin:
        for _ in range(_STEPS):
            first, *rest = parts
            node = module.names.get(first)
            match node:
                case None:
                    raise UnreadableError(f"{module.name} does not bind {first}")
                case ast.Import():
                    target = next(alias for alias in node.names if first in {alias.asname, alias.name.split(".")[0]})
                    full = [*(target.name if target.asname else first).split("."), *rest]
                case ast.ImportFrom():
                    alias = next(alias for alias in node.names if first in {alias.asname, alias.name})
                    full = [*_source(module, node).split("."), alias.name, *rest]
                case _:
                    if rest:
                        raise UnreadableError(f"{module.name}.{first} is no module")
                    return SourcePlace(module, node)
            if full[0] == _OURS:
                return Origin(".".join(full))
            module, parts = self._split(full)
        raise UnreadableError("a name leads back to itself")

    def _split(self, full: Sequence[str]) -> tuple[Module, Sequence[str]]:
        """The module at the front of a full name, as long a one as there is, and the rest of it."""
        for end in range(len(full) - 1, 0, -1):
            try:
                return self.module(".".join(full[:end])), full[end:]
            except UnreadableError:
                if end == 1:
                    raise
        raise UnreadableError(f"{'.'.join(full)} is a module")


def _installed(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError) as error:
        raise UnreadableError(str(error)) from error


def _bound(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What statements bind, as far as names go that are written out; branches count as taken."""
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node
            case ast.Assign():
                yield from ((target.id, node) for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name.split(".")[0], node) for alias in node.names)
            case ast.If() | ast.Try() | ast.With():
                yield from _bound([*node.body, *getattr(node, "orelse", [])])


def _parts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_parts(node.value), node.attr]
    raise UnreadableError("an expression is in the place of a name")


def _source(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.package.split(".")
    # One dot is the package itself, each further one a package above it.
    above = parts[: len(parts) - node.level + 1]
    return ".".join([*above, *([node.module] if node.module else [])])
