"""What is told of a proof: a table and differences, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.testing.proofs.proof import Example, OpProof, Proof

MOST_SHOWN: Final = 2
MOST_DIFFERENCES: Final = 8
_HEAD: Final = ("op", "hook", "kernel's own", "calls", "states", "equal", "passed", "differing")


def lines(proof: Proof) -> Iterator[str]:
    """A row for each op that was tried, what differs, what was not tried and why, and the sum."""
    tried = [each for each in proof.ops if each.states]
    yield from _table(tried)
    for each in tried:
        yield from _findings(each)
    for reason in dict.fromkeys(each.why_not for each in proof.ops if each.why_not and not each.justified):
        yield f"{reason}: {', '.join(each.op for each in proof.ops if each.why_not == reason)}"
    for each in proof.ops:
        if each.justified:
            yield f"justified: {each.op}: {each.justified.reason} ({each.justified.source})"
    yield f"{proof.states:,} states of {len(tried)} ops, {proof.unexplained:,} unexplained differences; {proof.end}"


def _table(proofs: list[OpProof]) -> Iterator[str]:
    rows = [_HEAD, *(_row(each) for each in proofs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        yield "  ".join(
            cell.rjust(width) if column > 2 else cell.ljust(width) for column, (cell, width) in enumerate(cells)
        ).rstrip()


def _row(each: OpProof) -> tuple[str, ...]:
    kinds = f" ({', '.join(f'{kind} {count}' for kind, count in each.kinds.most_common())})" if each.kinds else ""
    own = ", ".join(name for name, _ in each.own.most_common())
    numbers = (f"{each.calls:,}", str(each.states), str(each.equal), str(each.passed.total()))
    return each.path, each.hook, own, *numbers, f"{each.differing}{kinds}"


def _findings(each: OpProof) -> Iterator[str]:
    for reason, count in each.passed.most_common():
        yield f"{each.op}: {count} left to the kernel's own function: {reason}"
    for reason, count in each.lost.most_common():
        yield f"{each.op}: {count} could not be compared: {reason}"
    for example in each.examples[:MOST_SHOWN]:
        yield from _example(each, example)


def _example(each: OpProof, example: Example) -> Iterator[str]:
    arguments = ", ".join(f"{name}={value:#x}" for name, value in example.arguments.items())
    made_up = "made up at " if example.made_up else ""
    yield f"{each.op}({arguments}), {made_up}call {example.number} at {example.ns / 1e9:.6f} s from {example.caller}:"
    for found in example.differences[:MOST_DIFFERENCES]:
        before = f", before {found.before}" if found.before else ""
        yield f"    {found.kind}: {found.what} kernel {found.kernel}, hook {found.hook}{before}".replace(":  ", ": ")
    if (left := len(example.differences) - MOST_DIFFERENCES) > 0:
        yield f"    … and {left} more"
