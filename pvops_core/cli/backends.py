"""``pvops backends``: which backends there are, and with ``--check`` whether they are sound."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, print_table, write_json
from pvops_core.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    from pvops_core.backends.findings import BrokenPlugin  # noqa: PLC0415
    from pvops_core.records import like  # noqa: PLC0415

    faults, told = ([like(each, BrokenPlugin) for each in some] for some in (errors, notes))
    write_json("backends", {"checked": check, "backends": rows, "errors": faults, "notes": told}, json)
    if json != STDOUT:
        _print(rows, check=check)
    for note in notes:
        sys.stderr.write(f"pvops: note: {printable(str(note))}\n")
    for error in errors:
        sys.stderr.write(f"pvops: {printable(str(error))}\n")
    if errors:
        return ExitCode.FAULT
    return ExitCode.FINE if rows else ExitCode.NOTHING


def _listed(plugins: Sequence[str]) -> tuple[list[dict[str, Any]], list[PluginError]]:
    from pvops_core.backends.finding.discovery import discover  # noqa: PLC0415 - other verbs do without
    from pvops_core.backends.finding.summary import summary  # noqa: PLC0415 - likewise

    found = discover(plugins)
    rows = [_read(one, summary(one)) for one in found if not one.problem]
    return rows, [one.error(one.problem) for one in found if one.problem]


def _checked(plugins: Sequence[str]) -> tuple[list[dict[str, Any]], list[PluginError], list[PluginError]]:
    from pvops_core.backends import load_backends  # noqa: PLC0415 - heavy
    from pvops_core.cli.output.unused import unused  # noqa: PLC0415 - heavy

    loaded = load_backends(plugins)
    rows = [
        {**_source(loaded.sources[name]), **_declared(backend), "settings": _settings(backend, loaded.backends)}
        for name, backend in loaded.backends.items()
    ]
    return rows, list(loaded.errors), [*loaded.notes, *unused(loaded, plugins)]


def _source(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "entry_point": found.entry_point,
    }


def _read(found: Found, read: Summary) -> dict[str, Any]:
    row = _source(found)
    row["name"] = row["name"] or read.name or ""
    return row | {
        "description": read.description,
        "base": read.base,
        "capabilities": read.capabilities,
        "hooks": read.hooks,
        "settings": None,
    }


def _declared(backend: Backend) -> dict[str, Any]:
    from pvops_core.backends import implemented  # noqa: PLC0415 - heavy

    return {
        "name": backend.name,
        "description": backend.description,
        "base": backend.base,
        "kinds": sorted(kind.value for kind in backend.kinds),
        "capabilities": sorted(backend.capabilities),
        "forces": sorted(backend.forces),
        "hooks": sorted(implemented(backend)),
        "patchlets": sorted({patchlet.op for patchlet in backend.patchlets}),
    }


def _settings(backend: Backend, backends: Mapping[str, Backend]) -> list[dict[str, Any]]:
    from pvops_core.backends.choices import settings_of  # noqa: PLC0415 - heavy

    return [setting.to_json() for setting in settings_of(backend, backends).values()]


def _print(rows: Sequence[dict[str, Any]], *, check: bool) -> None:
    if not rows:
        return
    columns = ("kinds", "hooks", "patchlets") if check else ("hooks",)
    head = ("name", "distribution", "version", "base", *columns, "capabilities", "description")
    print_table(head, [[_cell(name, row) for name in head] for row in rows])
    if check:
        _print_settings(rows)


def _print_settings(rows: Sequence[dict[str, Any]]) -> None:
    """What ``--set`` takes, once for all backends that have a setting alike."""
    owners: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        for each in row["settings"]:
            line = each["name"], each["default"] or "-", each["allowed"], each["help"]
            owners.setdefault(line, []).append(row["name"])
    if owners:
        sys.stdout.write("\n")
        head = ("setting", "backends", "default", "allowed", "meaning")
        print_table(head, [(line[0], ",".join(names), *line[1:]) for line, names in owners.items()])


def _cell(name: str, row: dict[str, Any]) -> str:
    """A number of hooks and patchlets, the words of other lists, ``?`` for what only a check would tell."""
    value = row[name]
    if value is None:
        return "-" if name == "base" else "?"
    if name in {"hooks", "patchlets"}:
        return str(len(value))
    text = value if isinstance(value, str) else " ".join(value)
    return text or "-"
