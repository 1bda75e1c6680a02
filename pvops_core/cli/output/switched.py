"""What is told of the switches of a run: the log of them, and what became of each that the command line asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pvops_core.cli.common import ExitCode
from pvops_core.switchboard.ops import KERNEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.runs.observation import Observation
    from pvops_core.switchboard import Switch

MOST: Final = 20


def exit_code(observation: Observation) -> int:
    """5 where a switch that was asked for was refused; 0 otherwise."""
    refused = any(order.refused for order in observation.switch_orders)
    return ExitCode.DIFFERENCE if refused else ExitCode.FINE


def lines(observation: Observation) -> Iterator[str]:
    """The log; of what a kernel itself wrote into its table only how much that was."""
    shown = [each for each in observation.switch_log if each.by != KERNEL]
    own = len(observation.switch_log) - len(shown)
    for each in shown[:MOST]:
        yield f"{'switch':<20}{_switch(each)}"
    if len(shown) > MOST:
        yield f"{'':<20}… and {len(shown) - MOST} more"
    if own:
        yield f"{'':<20}slots written by the kernel itself: {own}"
    for order in observation.switch_orders:
        place = f"@{order.place}" if order.place else ""
        name = f"{order.ops}={order.what}{place}"
        if order.refused:
            yield f"{'switch refused':<20}{name}: {order.refused}"
        elif not order.made:
            yield f"{'switch not made':<20}{name}: the guest did not come to {order.place}"


def _switch(each: Switch) -> str:
    who = f" on vcpu {each.vcpu}" if each.vcpu is not None else ""
    said = f"{each.op}: {each.old} -> {each.new}, by {each.by} at {each.ns / 1e9:.6f} s{who}"
    return f"{said}, {each.sites} sites" if not each.refused else f"{said}: refused, {each.refused}"
