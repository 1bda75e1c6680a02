"""What looking inside a booted kernel found, for a person: the tables after the summary of ``pvops boot``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pvops_core.cli.common import ExitCode

MOST_DIFFERENCES: Final = 20
_WITNESSES: Final = ("predicted", "kernel", "record")


def exit_code(found: Mapping[str, Any]) -> int:
    """5 where something that was to be equal is not, or could not be looked at; 0 otherwise."""
    patching = found.get("patching")
    return ExitCode.DIFFERENCE if patching and not patching["equal"] else ExitCode.FINE


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """Everything that was found."""
    if patching := found.get("patching"):
        yield from _patching(patching)
    for hook in found.get("hooks", ()):
        yield from _hook(hook)
    if trace := found.get("trace"):
        yield from _trace(trace)


def _patching(patching: Mapping[str, Any]) -> Iterator[str]:
    yield f"{'patching':<20}{_verdict(patching)}"
    for path, unlike in patching["records"].items():
        if path == patching["record"]:
            yield f"{'':<20}compared with the record {path}"
        elif unlike:
            more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            yield f"{'':<20}record {path} is of a boot that filled {', '.join(unlike[:3])}{more} otherwise"
    for difference in patching["differences"][:MOST_DIFFERENCES]:
        yield f"{difference['address']} {difference['op']} ({difference['symbol']}), {difference['step']}:"
        for who in _WITNESSES:
            if difference[who] is not None:
                yield f"    {who:<10} {difference[who]:<18} {difference['assembly'][who]}"
    left = len(patching["differences"]) - MOST_DIFFERENCES
    if left > 0:
        yield f"… and {left} more"


def _hook(hook: Mapping[str, Any]) -> Iterator[str]:
    calls = f"{hook['calls']:,} calls, {hook['replaced']:,} in place of the kernel's own"
    yield f"{'hook':<20}{hook['function']} on {hook['op']}: {calls}; {hook['sites']:,} patched sites"
    if hook["originals"]:
        yield f"{'':<20}in front of {', then '.join(hook['originals'])}"


def _trace(trace: Mapping[str, Any]) -> Iterator[str]:
    """A table of each sort, what took longest first."""
    for what, title in (("ops", "op"), ("hypercalls", "hypercall"), ("traps", "trap")):
        shares = trace[what]
        if not shares:
            continue
        width = max(len(title), *map(len, shares))
        yield f"{title:<{width}}  {'count':>12}  {'virtual us':>14}"
        for name, share in sorted(shares.items(), key=lambda item: (-item[1]["ns"], -item[1]["count"], item[0])):
            yield f"{name:<{width}}  {share['count']:>12,}  {share['ns'] / 1000:>14,.1f}"


def _verdict(patching: Mapping[str, Any]) -> str:
    missing = [step for step, number in patching["steps"].items() if number is None]
    said = f"{patching['sites']:,} sites, "
    if patching["differences"]:
        said += f"{len(patching['differences']):,} differences"
    elif len(missing) < len(patching["steps"]):
        said += "no difference"
    if missing:
        said += f"{'' if said.endswith(', ') else '; '}the kernel did not come to the end of: {', '.join(missing)}"
    return said
