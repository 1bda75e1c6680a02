"""``pvops backends``: which backends there are, and with ``--check`` whether they are sound."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pvops_core.cli.common import STDOUT, ExitCode, JsonOption, PluginOption, print_table, printable, write_json
from pvops_core.compare.document import plugin_error_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pvops_core.errors import PluginError
    from pvops_core.hookspecs import Backend
    from pvops_core.plugins import Found


def backends(
    *,
    check: Annotated[bool, typer.Option("--check", help="Import them and check all that they declare.")] = False,
    plugin: PluginOption = None,
    json: JsonOption = None,
) -> int:
    """List backends by their distributions' metadata, importing none unless asked to check them."""
    rows, errors = _checked(plugin or []) if check else _listed(plugin or [])
    faults = [plugin_error_document(error) for error in errors]
    write_json("backends", {"checked": check, "backends": rows, "errors": faults}, json)
    if json != STDOUT:
        _print(rows, check=check)
    for error in errors:
        sys.stderr.write(f"pvops: {printable(str(error))}\n")
    if errors:
        return ExitCode.FAULT
    return ExitCode.FINE if rows else ExitCode.NOTHING


def _listed(plugins: Sequence[str]) -> tuple[list[dict[str, Any]], list[PluginError]]:
    from pvops_core.plugins import discover  # noqa: PLC0415 - heavy

    found = discover(plugins)
    rows = [_source(one) for one in found if not one.problem]
    return rows, [one.error(one.problem) for one in found if one.problem]


def _checked(plugins: Sequence[str]) -> tuple[list[dict[str, Any]], list[PluginError]]:
    from pvops_core.plugins import load_backends  # noqa: PLC0415 - heavy

    loaded = load_backends(plugins)
    rows = [{**_source(loaded.sources[name]), **_declared(loaded.backends[name])} for name in loaded.backends]
    return rows, list(loaded.errors)


def _source(found: Found) -> dict[str, Any]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "entry_point": found.entry_point,
    }


def _declared(backend: Backend) -> dict[str, Any]:
    from pvops_core.plugins import implemented  # noqa: PLC0415 - heavy

    return {
        "name": backend.name,
        "description": backend.description,
        "base": backend.base,
        "kinds": sorted(kind.value for kind in backend.kinds),
        "capabilities": sorted(backend.capabilities),
        "hooks": sorted(implemented(backend)),
        "patchlets": sorted({patchlet.op for patchlet in backend.patchlets}),
    }


def _print(rows: Sequence[dict[str, Any]], *, check: bool) -> None:
    if not rows:
        return
    if not check:
        head = ("name", "distribution", "version", "entry point")
        print_table(head, [[printable(str(value)) for value in row.values()] for row in rows])
        return
    print_table(
        ("name", "distribution", "version", "base", "kinds", "hooks", "patchlets", "description"),
        [
            (
                row["name"],
                printable(row["distribution"]),
                printable(row["version"]),
                row["base"] or "-",
                " ".join(row["kinds"]) or "-",
                len(row["hooks"]),
                len(row["patchlets"]),
                printable(row["description"]),
            )
            for row in rows
        ],
    )
