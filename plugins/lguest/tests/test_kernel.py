"""How a kernel that has lguest's code fills its table; one that has not is refused."""

from __future__ import annotations

import pytest
from pvops_lguest.kernel import LguestKernel

from pvops_core.errors import ImageError, UsageError
from pvops_core.images import KernelImage, load_image
from pvops_core.machine.cpu.model.identity import CpuIdentity
from pvops_core.ops import LAYOUTS
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.testing.kernels import SmallKernel

LAYOUT = LAYOUTS["6.1-32"]


def kernel(*functions: str) -> KernelImage:
    small = SmallKernel(LAYOUT, types=range(len(LAYOUT.slots)), functions=functions)
    return load_image(small.builder().build(), "small")


def test_ops_are_set_to_the_functions_that_the_kernel_has() -> None:
    image = kernel("lguest_init", "lguest_flush_tlb_user", "lguest_no_such_op")
    plan = plan_kernel(read_kernel(image), [LguestKernel()], 1)
    changed = {slot.path: plan.table[slot.type] for slot in LAYOUT.slots if slot.path == "mmu.flush_tlb_user"}
    assert changed == {"mmu.flush_tlb_user": image.symbols["lguest_flush_tlb_user"]}
    assert plan.table[0] == plan_kernel(read_kernel(image), [], 1).table[0]


def test_a_kernel_without_lguest_is_refused() -> None:
    with pytest.raises(ImageError, match="built without LGUEST_GUEST") as caught:
        plan_kernel(read_kernel(kernel()), [LguestKernel()], 1)
    assert caught.value.path == "small"


def test_several_cpus_are_refused() -> None:
    with pytest.raises(UsageError, match="one vCPU, not 2"):
        plan_kernel(read_kernel(kernel("lguest_init")), [LguestKernel()], 2)


@pytest.mark.parametrize(("later", "family"), [((), 6), (("lg_irq_enable",), 5)])
def test_what_lguest_cpuid_says_of_the_processor(later: tuple[str, ...], family: int) -> None:
    assert LguestKernel().processor(kernel("lguest_init", *later), CpuIdentity()) == CpuIdentity(family=family)
