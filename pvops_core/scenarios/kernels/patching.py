"""Stands where a kernel's own ``apply_paravirt`` asks its ``patch`` op for the code of a site, and is answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.backends.fills import fills_of
from pvops_core.errors import PvopsError
from pvops_core.patching.kernel import plan_kernel, read_kernel

if TYPE_CHECKING:
    from pvops_core.machine import Vcpu
    from pvops_core.patching.kernel import KernelPlan, ParavirtKernel
    from pvops_core.scenarios.kernels.stage import KernelStage
    from pvops_core.session import Session

AGE: Final = "one with a patch op in its table, 2.6.23 to 5.12"
_HOSTS: Final = ("xen", "lguest", "native")


@attrs.frozen
class PatchRequest:
    """What the kernel asks of its patch op.

    Attributes:
        type: number of the op that the site calls.
        buffer: guest-virtual address of the buffer to fill, which begins as a copy of the site.
        address: the site's.
        length: the site's, in bytes.
    """

    type: int
    buffer: int
    address: int
    length: int


class PatchOp:
    """Sees a kernel's patch op asked and answering, from the kernel's first site to its last.

    Args:
        session: whose kernel it is; it has not run yet.
        asked: called before the op, which sees what this writes into the buffer.
        answered: called when the op has returned, with the vCPU standing behind the call and the bytes that it used;
            with None for what was asked, when somebody comes there otherwise.

    Attributes:
        sites: those asked about so far, in order.
    """

    def __init__(
        self,
        session: Session,
        asked: Callable[[Vcpu, PatchRequest], None] = lambda _cpu, _asked: None,
        answered: Callable[[Vcpu, PatchRequest | None, int], None] = lambda _cpu, _asked, _used: None,
    ) -> None:
        self._session = session
        self._asked, self._answered = asked, answered
        self._result = "rax" if session.guest.image.pointer_size == 8 else "eax"
        self._backs: set[int] = set()
        self._last: PatchRequest | None = None
        self.sites: list[int] = []
        session.once_at("alternatives", lambda: session.ops.switch("patch", self._called, by="scenario"))

    def _called(self, cpu: Vcpu, type: int, insnbuf: int, addr: int, len: int) -> None:
        # u8 and unsigned: what a register holds above them is undefined.
        self._last = asked = PatchRequest(type & 0xFF, insnbuf, addr, len & 0xFFFFFFFF)
        self.sites.append(addr)
        back = cpu.word(cpu.rsp)
        # Every site is asked about from the same few places: each of them is watched once.
        if back not in self._backs:
            self._backs.add(back)
            self._session.machine.defer(lambda: self._watch(back))
        self._asked(cpu, asked)

    def _watch(self, back: int) -> None:
        self._session.machine.break_at(back, self._back)

    def _back(self, cpu: Vcpu) -> None:
        asked, self._last = self._last, None
        self._answered(cpu, asked, cpu.get(self._result) & 0xFFFFFFFF)


def kernel_with_patch_op(stage: KernelStage) -> ParavirtKernel:
    """The stage's kernel as its sites are read; refused if its table has no patch op."""
    try:
        kernel = read_kernel(stage.kernel.image)
    except PvopsError as error:
        raise stage.refused(f"its calls of ops cannot be read ({error})", AGE) from error
    if kernel.own is None:
        raise stage.refused("has no patch op: it patches by one fixed rule", AGE)
    return kernel


def plans(stage: KernelStage, kernel: ParavirtKernel) -> dict[str, KernelPlan]:
    """What the kernel makes of its sites on each backend that can host it."""
    found = {}
    for name in _HOSTS:
        if stage.hosts(name):
            try:
                found[name] = plan_kernel(kernel, fills_of(stage.chain(name)), 1)
            except PvopsError:
                continue  # not built for this platform
    return found
