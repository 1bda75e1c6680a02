"""What is told of a kernel's call sites, and of what the kernel makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from pvops_core.images.findings import Image
from pvops_core.records import FLAT, Count, JsonRecord, Positive

Address = Annotated[str, Meta(pattern="^0x[0-9a-f]+$")]
Code = Annotated[str, Meta(pattern="^([0-9a-f]{2})+$")]
MaybeCode = Annotated[str, Meta(pattern="^([0-9a-f]{2})*$")]
Kind = Literal["call", "nop", "bug"]


class ListedSite(JsonRecord, frozen=True):
    """A site.

    Attributes:
        address: Virtual address, hexadecimal.
        section: Section that it lies in.
        op: The op, by the kernel's path: `irq.save_fl`; null where the layout is not known.
        slot: The slot that sites of this type call through, as `symbol+0xoffset`; empty where no operand says it.
        type: Type number of the op.
        length: Bytes of the site.
        clobbers: Clobber word of the record.
        symbol: The address as `symbol+0xoffset`; empty if no symbol is below it.
    """

    address: Address
    section: str
    op: str | None
    slot: str
    type: Count
    length: Count
    clobbers: Count
    symbol: str


class SiteCounts(JsonRecord, frozen=True):
    """Counts.

    Attributes:
        sites: How many there are.
        ops: How many each op has.
        sections: How many each section has.
    """

    sites: Count
    ops: Mapping[str, Count]
    sections: Mapping[str, Count]


class SitesResult(JsonRecord, frozen=True):
    """The paravirt call sites of a kernel.

    Attributes:
        image: The kernel.
        layout: Layout of the table of ops; null if there are no sites, or it fits none that is known.
        sites: The sites in the order of the kernel's table.
        summary: Counts.
    """

    image: Image
    layout: str | None
    sites: tuple[ListedSite, ...]
    summary: SiteCounts


class PatchedSite(JsonRecord, frozen=True):
    """A site.

    Attributes:
        address: Virtual address, hexadecimal.
        section: Section that it lies in.
        op: The op, by the kernel's path: `irq.save_fl`.
        type: Number of the op in its layout, table by table.
        length: Bytes of the site.
        original: Its bytes in the file, hexadecimal.
        paravirt: After `apply_paravirt`; null in a kernel that has one step, from 6.8 on.
        final: After `apply_alternatives`.
    """

    address: Address
    section: str
    op: str
    type: Count
    length: Count
    original: Code
    paravirt: Code | None
    final: Code


class PatchedOp(JsonRecord, frozen=True):
    """What the sites of one op become.

    Attributes:
        sites: How many sites it has.
        target: What its slot holds, as `symbol+0xoffset`; null for an empty slot.
        kind: What its sites become that no ALTERNATIVE inlines.
        paravirt: The same, after `apply_paravirt`; null in a kernel without.
        inlined: How many of them an ALTERNATIVE inlines.
    """

    sites: Count
    target: str | None
    kind: Kind
    paravirt: Kind | None
    inlined: Count


class LockCounts(JsonRecord, frozen=True):
    """Lock prefixes of text.

    Attributes:
        places: How many there are, those in places with alternatives left out.
        final: The byte that is there: `f0`, or what one CPU has instead.
    """

    places: Count
    final: str


class PatchCounts(JsonRecord, frozen=True):
    """Counts.

    Attributes:
        sites: How many sites there are.
        layout: Layout of the table of ops.
        features: CPU features that the platform forces, by the kernel's names.
        paravirt: How many sites are a `call`, `nop` or `bug` after `apply_paravirt`; null in a kernel without.
        final: How many are a `call`, `nop`, `bug` or `inlined` after `apply_alternatives`.
        locks: Lock prefixes; null in a kernel that does not say where they are.
        ops: By op.
    """

    sites: Count
    layout: str
    features: tuple[str, ...]
    paravirt: Mapping[str, Count] | None
    final: Mapping[str, Count]
    locks: LockCounts | None
    ops: Mapping[str, PatchedOp]


class AlternativeEntry(JsonRecord, frozen=True):
    """An entry.

    Attributes:
        feature: The feature that decides.
        number: Its number.
        inverted: Whether it applies where the feature is not there.
        direct: Whether it makes a call of an op a direct one.
        replacement: Its replacement as in the file, hexadecimal.
    """

    feature: str
    number: Count
    inverted: bool = field(name="not")
    direct: bool
    replacement: MaybeCode


class AlternativePlace(JsonRecord, frozen=True):
    """A place.

    Attributes:
        address: Virtual address, hexadecimal.
        section: Section that it lies in.
        symbol: Where that is, as `symbol+0xoffset`.
        length: Bytes of the place.
        kind: What sort of place: a call of an op, else by what it became.
        entries: Its entries, in the order of the section; the last that applies wins.
        chosen: Index of the entry that applied; null where the code stays.
        original: Its bytes in the file, hexadecimal.
        final: After `apply_alternatives`.
        end: When the kernel has taken its last step of patching: call thunks may have changed it once more.
    """

    address: Address
    section: str
    symbol: str
    length: Count
    kind: Literal["op", "call", "jump", "nop", "retpoline", "code"]
    entries: tuple[AlternativeEntry, ...]
    chosen: Count | None
    original: Code
    final: Code
    end: Code


class KindCounts(JsonRecord, frozen=True):
    """Places of one kind.

    Attributes:
        groups: Places.
        replaced: Those where an entry applied.
        bytes: Their bytes.
        recorded: Where `--cpu` names a record: places that it has.
        right: Those that came out as recorded.
        right_bytes: Their bytes that did.
    """

    groups: Count
    replaced: Count
    bytes: Count
    recorded: Count | UnsetType = UNSET
    right: Count | UnsetType = UNSET
    right_bytes: Count | UnsetType = UNSET


class FeatureCounts(JsonRecord, frozen=True):
    """Places that ask for one feature.

    Attributes:
        there: Whether the CPU has it.
        groups: Places that ask for it.
        replaced: Places where an entry of it applied.
    """

    there: bool
    groups: Count
    replaced: Count


class AlternativeCounts(JsonRecord, frozen=True):
    """Counts.

    Attributes:
        groups: How many places there are.
        kinds: By kind.
        features: By feature that is asked for.
        returns: Returns that were changed before.
        retpolines: Indirect branches that were changed before.
        call_thunks: Calls that were led through call thunks, before or after as the kernel does it.
        left_out: Steps that the kernel takes on this CPU and that are not followed.
    """

    groups: Count
    kinds: Mapping[str, KindCounts]
    features: Mapping[str, FeatureCounts]
    returns: Count
    retpolines: Count
    call_thunks: Count
    left_out: tuple[str, ...]


class Alternatives(JsonRecord, frozen=True):
    """`--alternatives`: every place that the kernel patches by what its CPU has.

    Attributes:
        cpu: The CPU that was named; null for one of which nothing is known.
        features: Features that are there, by /proc/cpuinfo's names, else `WORD*32+BIT`.
        groups: The places, in the order of `.altinstructions`.
        summary: Counts.
    """

    cpu: str | None
    features: tuple[str, ...]
    groups: tuple[AlternativePlace, ...]
    summary: AlternativeCounts


class UnlikeSlot(JsonRecord, frozen=True):
    """A slot.

    Attributes:
        op: The op.
        predicted: What it was worked out to hold, as `symbol+0xoffset`; null for an empty slot.
        recorded: What it held.
    """

    op: str
    predicted: str | None
    recorded: str | None


class UnlikePlace(JsonRecord, frozen=True):
    """A place that differs.

    Attributes:
        address: Virtual address, hexadecimal.
        symbol: Where that is, as `symbol+0xoffset`.
        predicted: Bytes that were worked out; null where there is no such place.
        recorded: Bytes of the record; null where it has no such place.
    """

    address: Address
    symbol: str
    predicted: MaybeCode | None
    recorded: MaybeCode | None


class UnlikeSite(JsonRecord, frozen=True):
    """A site that differs.

    Attributes:
        place: Where, and in what.
        step: The step.
        op: The op; null of a site that only the record has.
    """

    place: Annotated[UnlikePlace, FLAT]
    step: Literal["paravirt", "final"]
    op: str | None


class Against(JsonRecord, frozen=True):
    """`--against`: how the result differs from a record.

    Attributes:
        record: File of the record.
        run: What it calls the boot.
        equal: Whether nothing differs.
        table: Slots that hold other functions.
        sites: Sites that differ after a step.
        alternatives: Other places that differ; null where they were not asked for, or the record has none.
    """

    record: str
    run: str
    equal: bool
    table: tuple[UnlikeSlot, ...]
    sites: tuple[UnlikeSite, ...]
    alternatives: tuple[UnlikePlace, ...] | None


class PatchResult(JsonRecord, frozen=True):
    """What a kernel makes of its paravirt call sites on a backend's platform.

    Attributes:
        image: The kernel.
        backend: Name of the backend.
        cpus: CPUs that the kernel sees.
        sites: The sites in the order of the kernel's table.
        summary: Counts.
        alternatives: What the other alternatives become.
        against: How it differs from a record.
    """

    image: Image
    backend: str
    cpus: Positive
    sites: tuple[PatchedSite, ...]
    summary: PatchCounts
    alternatives: Alternatives | UnsetType = UNSET
    against: Against | UnsetType = UNSET
