"""``pvops backends``: which backends there are, and with ``--check`` whether they are sound."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pvops_core.backends.findings import BackendsResult, BrokenPlugin, ListedBackend
from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, print_table, write_json
from pvops_core.errors import printable, shortened
from pvops_core.records import document, like

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pvops_core.backends import Backend
    from pvops_core.backends.finding.found import Found
    from pvops_core.backends.finding.summary import Summary
    from pvops_core.errors import PluginError


def backends(
    *,
    check: Annotated[bool, typer.Option("--check", help="Import each and check all that it declares.")] = False,
    plugin: PluginOption = None,
    json: JsonOption = None,
) -> int:
    """List the backends that there are.

    Reads the metadata and the sources of installed distributions, and imports none of them unless asked to check
    them. A check also runs the built-in guest on each backend that has a base, in every layout that it can be, and
    tells which of its ops have other code in their place.

    Exit code: 0 all are sound, 3 there is none, 4 one is broken.
    """
    rows, errors, notes = _checked(plugin or []) if check else (*_listed(plugin or []), [])
    faults, told = (tuple(like(each, BrokenPlugin) for each in some) for some in (errors, notes))
    write_json("backends", BackendsResult(checked=check, backends=tuple(rows), errors=faults, notes=told), json)
    if json != STDOUT:
        _print(rows, check=check)
    for note in notes:
        sys.stderr.write(f"pvops: note: {printable(shortened(str(note)))}\n")
    for error in errors:
        sys.stderr.write(f"pvops: {printable(shortened(str(error)))}\n")
    if errors:
        return ExitCode.FAULT
    return ExitCode.FINE if rows else ExitCode.NOTHING


def _listed(plugins: Sequence[str]) -> tuple[list[ListedBackend], list[PluginError]]:
    from pvops_core.backends.finding.discovery import discover  # noqa: PLC0415 - other verbs do without
    from pvops_core.cli.keptsummary import summary  # noqa: PLC0415 - likewise

    found = discover(plugins)
    rows = [_read(one, summary(one)) for one in found if not one.problem]
    return rows, [one.error(one.problem) for one in found if one.problem]


def _checked(plugins: Sequence[str]) -> tuple[list[ListedBackend], list[PluginError], list[PluginError]]:
    from pvops_core.backends import load_backends  # noqa: PLC0415 - heavy
    from pvops_core.cli.output.unused import unused  # noqa: PLC0415 - heavy

    loaded = load_backends(plugins)
    rows = [_declared(loaded.sources[name], backend, loaded.backends) for name, backend in loaded.backends.items()]
    return rows, list(loaded.errors), [*loaded.notes, *unused(loaded, plugins)]


def _read(found: Found, read: Summary) -> ListedBackend:
    return ListedBackend(
        name=found.name or read.name or "",
        distribution=found.distribution,
        version=found.version,
        entry_point=found.entry_point,
        description=read.description,
        base=read.base,
        capabilities=_tuple(read.capabilities),
        hooks=_tuple(read.hooks),
    )


def _tuple(words: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if words is None else tuple(words)


def _declared(found: Found, backend: Backend, backends: Mapping[str, Backend]) -> ListedBackend:
    from pvops_core.backends import implemented  # noqa: PLC0415 - heavy
    from pvops_core.backends.choices import settings_of  # noqa: PLC0415 - heavy

    return ListedBackend(
        name=backend.name,
        distribution=found.distribution,
        version=found.version,
        entry_point=found.entry_point,
        description=backend.description,
        base=backend.base,
        kinds=tuple(sorted(backend.kinds, key=lambda kind: kind.value)),
        capabilities=tuple(sorted(backend.capabilities)),
        forces=tuple(sorted(backend.forces)),
        hooks=tuple(sorted(implemented(backend))),
        patchlets=tuple(sorted({patchlet.op for patchlet in backend.patchlets})),
        settings=tuple(setting.listed() for setting in settings_of(backend, backends).values()),
    )


def _print(rows: Sequence[ListedBackend], *, check: bool) -> None:
    if not rows:
        return
    columns = ("kinds", "hooks", "patchlets") if check else ("hooks",)
    head = ("name", "distribution", "version", "base", *columns, "capabilities", "description")
    print_table(head, [[_cell(name, row) for name in head] for row in rows])
    if check:
        _print_settings(rows)


def _print_settings(rows: Sequence[ListedBackend]) -> None:
    """What ``--set`` takes, once for all backends that have a setting alike."""
    owners: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        for each in row.settings or ():
            line = each.name, each.default or "-", each.allowed, each.help
            owners.setdefault(line, []).append(row.name)
    if owners:
        sys.stdout.write("\n")
        head = ("setting", "backends", "default", "allowed", "meaning")
        print_table(head, [(line[0], ",".join(names), *line[1:]) for line, names in owners.items()])


def _cell(name: str, row: ListedBackend) -> str:
    """A number of hooks and patchlets, the words of other lists, ``?`` for what only a check would tell."""
    value = getattr(row, name)
    if value is None:
        return "-" if name == "base" else "?"
    if name in {"hooks", "patchlets"}:
        return str(len(value))
    text = value if isinstance(value, str) else " ".join(document(value))
    return text or "-"
