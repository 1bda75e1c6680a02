"""What looking inside a booted kernel found, for a person: the tables after the summary of ``pvops boot``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from pvops_core.cli.common import ExitCode
from pvops_core.runs.inside import OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pvops_core.runs.inside import Inside, ServedOps
    from pvops_core.runs.orders import HookDone
    from pvops_core.session.findings import Patching, Traced

MOST_DIFFERENCES: Final = 20
MOST_NAMES: Final = 5


def exit_code(found: Inside) -> int:
    """5 where something that was to be equal is not, or could not be looked at; 0 otherwise."""
    return ExitCode.DIFFERENCE if found.patching and not found.patching.equal else ExitCode.FINE


def lines(found: Inside, *, advice: bool = True) -> Iterator[str]:
    """Everything that was found; what might be asked for as well, unless there is something else to mend."""
    if found.patching:
        yield from _patching(found.patching)
    if found.ops:
        yield from _served(found.ops)
        yield from _left_out(found.ops) if advice else ()
    for hook in found.hooks or ():
        yield from _hook(hook)
    if found.trace:
        yield from _trace(found.trace)


def _patching(patching: Patching) -> Iterator[str]:
    yield f"{'patching':<20}{_verdict(patching)}"
    for path, unlike in patching.records.items():
        if path == patching.record:
            yield f"{'':<20}compared with the record {path}"
        elif unlike:
            more = f" and {len(unlike) - 3} more" if len(unlike) > 3 else ""
            yield f"{'':<20}record {path} is of a boot that filled {', '.join(unlike[:3])}{more} otherwise"
    for difference in patching.differences[:MOST_DIFFERENCES]:
        yield f"{difference.address} {difference.op} ({difference.symbol}), {difference.step}:"
        for who, text in difference.assembly.items():
            yield f"    {who:<10} {getattr(difference, who):<18} {text}"
    left = len(patching.differences) - MOST_DIFFERENCES
    if left > 0:
        yield f"… and {left} more"


def _served(ops: ServedOps) -> Iterator[str]:
    """Whose hooks served how many calls, and what they left to the kernel."""
    served = ops.served
    if served:
        whose = Counter(each.implementation.partition(".")[0] for each in served)
        calls, sites = sum(each.calls for each in served), sum(each.sites for each in served)
        hooks = ", ".join(f"{number} of {owner}" for owner, number in whose.items())
        yield f"{'ops':<20}{len(served)} in Python ({hooks}): {calls:,} calls; {sites:,} patched sites call them again"
    for each in served:
        for reason, number in each.left.items():
            share = f"{number:,} of {each.calls:,} calls"
            yield f"{'':<20}{each.op} left {share} to the kernel's own function: {reason}"


def _left_out(ops: ServedOps) -> Iterator[str]:
    """Which of the backend's hooks were not used."""
    served, unused, name = ops.served, ops.unused, ops.backend
    if served and ops.unknown and name not in OURS:
        yield f"{'':<20}no ops of this kernel, so that {name}'s hooks are not called: {_few(ops.unknown)}"
    if unused:
        how = (
            "--ops alone or with their names lets them" if served else "--ops lets them serve where they know the guest"
        )
        hooks = f"hooks of {name} in Python: {len(unused)} ({_few(unused)})"
        yield f"{'unused':<20}{hooks}; the kernel's own functions serve, {how}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + (", …" if len(names) > MOST_NAMES else "")


def _hook(hook: HookDone) -> Iterator[str]:
    calls = f"{hook.calls:,} calls, {hook.replaced:,} in place of the kernel's own"
    yield f"{'hook':<20}{hook.function} on {hook.op}: {calls}; {hook.sites:,} patched sites"
    if hook.originals:
        yield f"{'':<20}in front of {', then '.join(hook.originals)}"


def _trace(trace: Traced) -> Iterator[str]:
    """A table of each sort, what took longest first."""
    for shares, title in ((trace.ops, "op"), (trace.hypercalls, "hypercall"), (trace.traps, "trap")):
        if not shares:
            continue
        width = max(len(title), *map(len, shares))
        yield f"{title:<{width}}  {'count':>12}  {'virtual us':>14}"
        for name, share in sorted(shares.items(), key=lambda item: (-item[1].ns, -item[1].count, item[0])):
            yield f"{name:<{width}}  {share.count:>12,}  {share.ns / 1000:>14,.1f}"


def _verdict(patching: Patching) -> str:
    missing = [step for step, number in patching.steps.items() if number is None]
    locks = f"{patching.locks:,} lock prefixes, " if patching.locks else ""
    said = f"{patching.sites:,} sites, {locks}"
    if patching.differences:
        said += f"{len(patching.differences):,} differences"
    elif len(missing) < len(patching.steps):
        said += "no difference"
    if missing:
        said += f"{'' if said.endswith(', ') else '; '}the kernel did not come to the end of: {', '.join(missing)}"
    return said
