"""Three witnesses of a kernel's patching: our patcher's plan, the kernel's own work in our machine, and a record of it.

The kernel is looked at when its own ``apply_paravirt`` has returned for the first time (modules come later), where it
has one, and when ``alternative_instructions`` has: then all text is still there, init text too, and only the vCPU that
patches runs. What hooks of ours have changed is seen as it would be without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pvops_core.patching.code.disasm import listing
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.patching.locks import KEEPS, LOCK
from pvops_core.session.findings import Patching, PatchingDifference, Step

if TYPE_CHECKING:
    from pvops_core.guest.points import Passed
    from pvops_core.machine import Vcpu
    from pvops_core.patching.bootrecords import BootRecord
    from pvops_core.patching.fills import KernelFill
    from pvops_core.patching.kernel import KernelPlan
    from pvops_core.patching.locks import LockPrefixes
    from pvops_core.session import Session

LOCKED: Final = "free_initmem"
"""Point of the boot at which lock prefixes are looked at."""
STEPS: Final[Mapping[str, Step]] = {"paravirt": "paravirt", "patched": "final"}
"""Point of the boot to the step of patching that is over there, in a kernel that takes it (``KernelPlan.steps``)."""


class PatchingCheck:
    """Watches one boot and says where the witnesses differ.

    Args:
        session: a session that has not run yet.
        fills: how the kernel fills its table, of the backend and before it of its bases.
        records: of this kernel.

    Raises:
        ImageError: the kernel's patching cannot be planned: it has no sites, say.
    """

    def __init__(self, session: Session, fills: Sequence[KernelFill], records: Sequence[BootRecord]) -> None:
        self._session = session
        self._image = session.kernel.image
        self._kernel = read_kernel(self._image)
        self.plan: KernelPlan = plan_kernel(self._kernel, fills, len(session.machine.vcpus), session.machine.identity)
        self._records = records
        self._seen: dict[Step, tuple[bytes, ...]] = {}
        self._table: tuple[int, ...] = ()
        self._locks: Mapping[int, int] | None = None
        self._lock = LOCK
        session.points.listen(self._look, acts=False)

    def _look(self, passed: Passed, _vcpu: Vcpu) -> None:
        if passed.name == LOCKED and self.plan.kernel.locks is not None:
            self._look_at_locks(self.plan.kernel.locks)
        step = STEPS.get(passed.name)
        if step is None or step not in self.plan.steps:
            return
        text, size = self._session.text, self._image.pointer_size
        instead = self._session.text_without_hooks()
        sites = (planned.site for planned in self.plan.sites)
        self._seen[step] = tuple(instead.get(site.address) or text.read(site.address, site.length) for site in sites)
        if not self._table:
            entries = self._entries()
            slots = (text.pointers(slot, 1, size)[0] for slot in self._kernel.slot_addresses)
            self._table = tuple(entries.get(target, target) for target in slots)

    def _look_at_locks(self, locks: LockPrefixes) -> None:
        """All CPUs that will be started have been."""
        kept = KEEPS in self._session.kernel.cmdline.split()
        self._lock = LOCK if kept else locks.byte(self._session.processors.started)
        text = self._session.text
        self._locks = {address: text.read(address, 1)[0] for address in locks.addresses}

    def _entries(self) -> Mapping[int, int]:
        """Where hooks of ours are called, and what comes after each: its slot would hold that without it."""
        hooks = self._session.made_hooks
        return {hook.entry: hook.original for hook in hooks.standing} if hooks else {}

    @property
    def record(self) -> BootRecord | None:
        """The record that this boot is held against: the first of a boot with the same functions in its table."""
        return next((record for record in self._records if record.table == self._table), None)

    @property
    def equal(self) -> bool:
        """The kernel has patched itself, and all witnesses say the same."""
        return set(self.plan.steps) == self._seen.keys() and not self.differences()

    def differences(self) -> list[PatchingDifference]:
        """What the witnesses differ in: slots, then sites in the order of their section, step by step."""
        sites = (found for step in self._seen for found in self._sites(step))
        return [*self._slots(), *sites, *self._wrong_locks()]

    def _slots(self) -> list[PatchingDifference]:
        size, layout = self._image.pointer_size, self._kernel.layout
        return [
            self._difference(
                "slot",
                layout.slots[type_].path,
                (self._kernel.slot_addresses[type_], self._name(found) if found else ""),
                predicted=planned.to_bytes(size, "little"),
                kernel=found.to_bytes(size, "little"),
                record=None,
            )
            for type_, (planned, found) in enumerate(zip(self.plan.table, self._table, strict=False))
            if planned != found
        ]

    def _wrong_locks(self) -> list[PatchingDifference]:
        return [
            self._difference(
                "lock",
                "lock",
                (address, self._name(address)),
                predicted=bytes([self._lock]),
                kernel=bytes([found]),
                record=None,
            )
            for address, found in (self._locks or {}).items()
            if found != self._lock
        ]

    def _sites(self, step: Step) -> list[PatchingDifference]:
        record = self.record
        recorded: Mapping[int, bytes] = record.sites[step] if record else {}
        found = []
        for planned, code in zip(self.plan.sites, self._seen[step], strict=True):
            site, predicted, other = planned.site, getattr(planned, step), recorded.get(planned.site.address)
            if code != predicted or (record and other != code):
                op, place = self._kernel.layout.slots[site.type].path, (site.address, self._name(site.address))
                found.append(self._difference(step, op, place, predicted=predicted, kernel=code, record=other))
        return found

    def _name(self, address: int) -> str:
        name, distance = self._image.symbol_at(address) or ("", address)
        return f"{name}+{distance:#x}" if distance else name

    def found(self) -> Patching:
        """The result, as docs/explanation/looking-inside.md describes it."""
        differences = self.differences()
        return Patching(
            equal=self.equal,
            sites=len(self.plan.sites),
            locks=None if self._locks is None else len(self._locks),
            steps={
                step: sum(found.step == step for found in differences) if step in self._seen else None
                for step in self.plan.steps
            },
            record=self.record.path if self.record else None,
            records={record.path: self._unlike(record) for record in self._records},
            differences=tuple(differences),
        )

    def _difference(self, step: Step, op: str, place: tuple[int, str], **said: bytes | None) -> PatchingDifference:
        """What the witnesses say of an address, in hex and as assembly."""
        address, symbol = place
        assembly = {who: self._assembly(step, code, address) for who, code in said.items() if code is not None}
        texts = {who: None if code is None else code.hex() for who, code in said.items()}
        return PatchingDifference(step, op, f"{address:#x}", symbol, **texts, assembly=assembly)  # type: ignore[arg-type]

    def _assembly(self, step: Step, code: bytes, address: int) -> str:
        if step in {"slot", "lock"}:
            return f"{int.from_bytes(code, 'little'):#x}"
        return "; ".join(text for _address, _code, text in listing(code, address, 8 * self._image.pointer_size))

    def _unlike(self, record: BootRecord) -> tuple[str, ...]:
        """Ops whose slots the record's boot filled differently: why it is not comparable."""
        slots = self._kernel.layout.slots
        pairs = zip(record.table, self._table, slots, strict=False)
        return tuple(slot.path for recorded, found, slot in pairs if recorded != found)
