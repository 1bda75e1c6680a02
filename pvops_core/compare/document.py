"""The JSON of a comparison, without the schema's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

from msgspec import UNSET, UnsetType

from pvops_core.backends.findings import BrokenPlugin
from pvops_core.compare.bootdiff import SiteDifference, boot_differences
from pvops_core.compare.differences import Difference
from pvops_core.records import FLAT, Count, JsonRecord, like
from pvops_core.runs.cell import Group
from pvops_core.runs.observation import Observation
from pvops_core.runs.plan import Skipped

if TYPE_CHECKING:
    from pvops_core.compare.bootdiff import BootDifference
    from pvops_core.compare.comparison import Choice, Comparison, GroupResult


class ComparedSites(JsonRecord, frozen=True):
    """Call sites of one op.

    Attributes:
        sites: Sites of the op read in both.
        differing: How many of them differ.
    """

    sites: Count
    differing: Count


class ComparedBoot(JsonRecord, frozen=True):
    """Where a boot differs from the reference's.

    Attributes:
        reference: The backend measured by.
        backend: The backend whose boot this is.
        sites: Call sites that were read in both boots.
        sites_differing: How many of them hold other bytes.
        sites_by_op: The same by op, for the ops asked for.
        differing: Each site that differs, of the ops asked for.
        console: Rows of the consoles side by side, without time stamps, that are not the same.
        console_alike: Rows that are the same.
    """

    reference: str
    backend: str
    sites: Count
    sites_differing: Count
    sites_by_op: Mapping[str, ComparedSites]
    differing: tuple[SiteDifference, ...]
    console: tuple[tuple[str | None, str | None], ...]
    console_alike: Count


class ComparedGroup(JsonRecord, frozen=True):
    """Cells that differ in the backend alone.

    Attributes:
        group: What they have in common.
        equal: No differences, and every guest came to its own end.
        backends: Names of the backends, in order.
        reference: The backend that the others are measured by: the first whose guest came to its own end.
        differences: Every result that is not the reference's.
        boots: Of a kernel: where each other boot differs from the reference's.
    """

    group: Annotated[Group, FLAT]
    equal: bool
    backends: tuple[str, ...]
    reference: str
    differences: tuple[Difference, ...]
    boots: tuple[ComparedBoot, ...] | UnsetType = UNSET


class CompareResult(JsonRecord, frozen=True):
    """Runs of the same guests on several backends, and where they differ.

    Attributes:
        equal: Something ran, all of it came to its own end, and results are equal in every group.
        verdict: The result in a sentence.
        exit_code: The command's exit code.
        command: The command that makes the same runs again.
        groups: What was compared: cells that differ in the backend alone.
        cells: All runs, group by group.
        skipped: What was left out.
        plugin_errors: Plugins that could not be used.
    """

    equal: bool
    verdict: str
    exit_code: Count
    command: str
    groups: tuple[ComparedGroup, ...]
    cells: tuple[Observation, ...]
    skipped: tuple[Skipped, ...]
    plugin_errors: tuple[BrokenPlugin, ...]


def compare_result(comparison: Comparison) -> CompareResult:
    """All runs, what they had in common, and where they differ."""
    return CompareResult(
        equal=comparison.equal,
        verdict=comparison.verdict,
        exit_code=comparison.exit_code,
        command=comparison.command,
        groups=tuple(_group(group, comparison.choice) for group in comparison.groups),
        cells=comparison.observations,
        skipped=comparison.skipped,
        plugin_errors=tuple(like(error, BrokenPlugin) for error in comparison.plugin_errors),
    )


def _group(group: GroupResult, choice: Choice) -> ComparedGroup:
    boots = tuple(_boot(each, choice) for each in boot_differences(group)) if group.group.of_kernel else UNSET
    return ComparedGroup(
        group=group.group,
        equal=group.equal,
        backends=tuple(observation.cell.backend for observation in group.observations),
        reference=group.reference.cell.backend,
        differences=group.differences,
        boots=boots,
    )


def _boot(difference: BootDifference, choice: Choice) -> ComparedBoot:
    by_op = difference.by_op
    return ComparedBoot(
        reference=difference.reference.cell.backend,
        backend=difference.other.cell.backend,
        sites=difference.compared,
        sites_differing=len(difference.sites),
        sites_by_op={
            op: ComparedSites(number, by_op[op]) for op, number in difference.shared.items() if choice.wants(op)
        },
        differing=tuple(site for site in difference.sites if choice.wants(site.op)),
        console=tuple((pair.left, pair.right) for pair in difference.unlike),
        console_alike=len(difference.lines) - len(difference.unlike),
    )
