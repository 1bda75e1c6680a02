"""``pvops patch --alternatives``: what every ALTERNATIVE becomes, besides those at call sites."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from msgspec import UNSET

from pvops_core.cli.common import print_table, symbol_json
from pvops_core.errors import UsageError, unknown
from pvops_core.patching.findings import (
    AlternativeCounts,
    AlternativeEntry,
    AlternativePlace,
    Alternatives,
    FeatureCounts,
    KindCounts,
)

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.machine.cpu.model.identity import CpuIdentity
    from pvops_core.patching.altinstructions.alternatives import AltEntry
    from pvops_core.patching.altinstructions.whole import AlternativesPlan
    from pvops_core.patching.kernel import KernelPlan
    from pvops_core.patching.plan import PlannedGroup

KINDS = ("op", "call", "jump", "nop", "retpoline", "code")


@attrs.frozen
class Cpu:
    """The CPU that alternatives are followed for.

    Attributes:
        name: as the user named it; None for one of which nothing is known.
        features: numbers of its features as the kernel would find them.
        identity: whose processor it is; None where it does not say.
        finals: what a recorded boot made of each place; empty where there is no record.
    """

    name: str | None = None
    features: frozenset[int] = frozenset()
    identity: CpuIdentity | None = None
    finals: Mapping[int, bytes] = attrs.field(factory=dict)


def find_cpu(name: str | None, image: KernelImage) -> Cpu:
    """The CPU of a name: a model, an identity (``vendor=AuthenticAMD,family=6``), or the file of a record of it.

    Raises:
        ImageError: the file is no record, or not of this kernel.
        UsageError: there is neither such a model nor such a file, or it is no identity.
    """
    from pvops_core.machine.cpu.model.cpumodel import cpu_identity  # noqa: PLC0415
    from pvops_core.patching.altinstructions.cpus import MODELS  # noqa: PLC0415
    from pvops_core.patching.bootrecords import read_record  # noqa: PLC0415 - heavy

    if name is None:
        return Cpu()
    if name in MODELS:
        return Cpu(name, MODELS[name].features(image), MODELS[name].identity)
    if "=" in name and not Path(name).exists():
        try:
            return Cpu(name, identity=cpu_identity(name))
        except ValueError as error:
            raise UsageError(f"--cpu {name}: {error}") from None
    if not Path(name).exists():
        raise unknown("file or CPU", name, sorted(MODELS))
    record = read_record(Path(name), image)
    return Cpu(name, record.features(image), finals=record.alternatives)


def describe(plan: KernelPlan, alternatives: AlternativesPlan, cpu: Cpu) -> Alternatives:
    """The ``alternatives`` member of the result."""
    from pvops_core.patching.altinstructions.capabilities import feature_names  # noqa: PLC0415 - heavy

    image, names = plan.kernel.image, feature_names(plan.kernel.image)
    return Alternatives(
        cpu=cpu.name,
        features=tuple(_feature(number, names) for number in sorted(alternatives.features)),
        groups=tuple(_group(image, planned, names, alternatives.ends) for planned in alternatives.groups),
        summary=AlternativeCounts(
            groups=len(alternatives.groups),
            kinds=_kinds(image, alternatives, cpu),
            features=_by_feature(alternatives, names),
            returns=alternatives.returns,
            retpolines=alternatives.retpolines,
            call_thunks=alternatives.call_thunks,
            left_out=tuple(alternatives.left_out),
        ),
    )


def _feature(number: int, names: Mapping[int, str]) -> str:
    return names.get(number) or f"{number // 32}*32+{number % 32}"


def _group(
    image: KernelImage, planned: PlannedGroup, names: Mapping[int, str], ends: Mapping[int, bytes]
) -> AlternativePlace:
    from pvops_core.patching.altinstructions.whole import kind_of  # noqa: PLC0415 - heavy

    group = planned.group
    section = image.section_at(group.address)
    return AlternativePlace(
        address=f"{group.address:#x}",
        section=section.name if section else "",
        symbol=symbol_json(image, group.address),
        length=group.length,
        kind=kind_of(planned, 8 * image.pointer_size),  # type: ignore[arg-type]  # one of KINDS
        entries=tuple(_entry(image, entry, names) for entry in group.entries),
        chosen=group.entries.index(planned.chosen) if planned.chosen else None,
        original=image.read(group.address, group.length).hex(),
        final=planned.final.hex(),
        end=ends[group.address].hex(),
    )


def _entry(image: KernelImage, entry: AltEntry, names: Mapping[int, str]) -> AlternativeEntry:
    length = entry.replacement_length
    replacement = image.read(entry.replacement, length).hex() if length else ""
    return AlternativeEntry(_feature(entry.feature, names), entry.feature, entry.inverted, entry.direct, replacement)


def _kinds(image: KernelImage, alternatives: AlternativesPlan, cpu: Cpu) -> dict[str, KindCounts]:
    """By kind: places, those replaced and, where there is a record, those that came out as in it, with their bytes."""
    from pvops_core.patching.altinstructions.whole import kind_of  # noqa: PLC0415 - heavy

    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for planned in alternatives.groups:
        count = counts[kind_of(planned, 8 * image.pointer_size)]
        count["groups"] += 1
        count["replaced"] += planned.chosen is not None
        count["bytes"] += planned.group.length
        recorded = cpu.finals.get(planned.group.address)
        if recorded is not None:
            count["recorded"] += 1
            count["right"] += recorded == planned.final
            count["right_bytes"] += sum(one == other for one, other in zip(recorded, planned.final, strict=False))
    names = ("groups", "replaced", "bytes", *(("recorded", "right", "right_bytes") if cpu.finals else ()))
    return {
        kind: KindCounts(**{name: count[name] for name in names}) for kind, count in counts.items() if count["groups"]
    }


def _by_feature(alternatives: AlternativesPlan, names: Mapping[int, str]) -> dict[str, FeatureCounts]:
    """By feature: whether the CPU has it, in how many places it is asked for, and in how many it decided."""
    asked: Counter[int] = Counter()
    decided: Counter[int] = Counter()
    for planned in alternatives.groups:
        asked.update({entry.feature for entry in planned.group.entries})
        if planned.chosen is not None:
            decided[planned.chosen.feature] += 1
    return {
        _feature(number, names): FeatureCounts(
            there=number in alternatives.features or names.get(number) == "always",
            groups=count,
            replaced=decided[number],
        )
        for number, count in sorted(asked.items())
    }


def show(result: Alternatives) -> None:
    """Print the summary."""
    summary = result.summary
    rows = [
        (name, "yes" if each.there else "no", each.groups, each.replaced) for name, each in summary.features.items()
    ]
    print_table(("feature", "there", "groups", "replaced"), rows)
    recorded = any(each.right is not UNSET for each in summary.kinds.values())
    columns = ("groups", "replaced", "bytes", *(("right", "right_bytes") if recorded else ()))
    kinds = [(kind, *(getattr(each, column) for column in columns)) for kind, each in summary.kinds.items()]
    print_table(("kind", *columns), kinds)
    line = f"alternatives: {summary.groups} groups, after {summary.returns} returns and "
    sys.stdout.write(f"{line}{summary.retpolines} indirect branches\n")
    if summary.call_thunks:
        sys.stdout.write(f"call thunks: {summary.call_thunks} calls\n")
    for step in summary.left_out:
        sys.stdout.write(f"not followed: {step}\n")
