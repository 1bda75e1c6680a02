"""Calls of single functions of Debian's kernel, booted once on each platform."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import UsageError
from pvops_core.testing.booted import BootedKernel, Recipe
from pvops_core.testing.call import CallError

CLOUD = "vmlinuz-6.1.0-56-cloud-amd64"
IF = 0x200
pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def xen(kernel_path: Callable[[str], Path]) -> Iterator[BootedKernel]:
    with BootedKernel(Recipe(str(kernel_path(CLOUD)), "xen"), load_backends().backends) as booted:
        yield booted


@pytest.fixture
def kernel(xen: BootedKernel) -> BootedKernel:
    xen.restore()
    return xen


def test_pgd_val_is_a_pure_function(kernel: BootedKernel) -> None:
    entry = kernel.call("__raw_callee_save_xen_make_pgd", 0x2A10067)
    assert kernel.call("__raw_callee_save_xen_pgd_val", entry.result).result == 0x2A10067
    assert not entry.changes
    assert not entry.hypercalls


def test_write_cr3_makes_one_hypercall_of_two_operations(kernel: BootedKernel) -> None:
    root = kernel.call("xen_read_cr3").result
    done = kernel.call("xen_write_cr3", root)
    (made,) = done.made
    assert (made.name, made.arguments[1], made.result) == ("mmuext_op", 2, 0)
    assert not done.multicalls
    assert kernel.call("xen_read_cr3").result == root


def test_what_a_context_switch_puts_off_goes_out_in_one_multicall(kernel: BootedKernel) -> None:
    task, root = kernel.symbols["init_task"], kernel.call("xen_read_cr3").result
    assert not kernel.call("paravirt_start_context_switch", task).made
    assert not kernel.call("xen_load_sp0", kernel.vcpu.rsp).made
    assert not kernel.call("xen_write_cr3", root).made
    done = kernel.call("xen_end_context_switch", task)
    assert [call.name for call in done.multicalls] == ["stack_switch", "mmuext_op"]
    assert done.hypercalls == {"multicall": 1, "stack_switch": 1, "mmuext_op": 1}


def test_an_op_is_called_through_its_slot_by_its_convention(kernel: BootedKernel) -> None:
    entry = kernel.op("make_pgd", 0x2A10067)
    assert entry.result == kernel.call("__raw_callee_save_xen_make_pgd", 0x2A10067).result
    assert kernel.op("pgd_val", entry.result).result == 0x2A10067
    root = kernel.op("read_cr3").result
    done = kernel.op("write_cr3", root)
    assert [made.name for made in done.made] == ["mmuext_op"]
    assert not done.faults
    assert not done.calls, "no Python code serves it"
    kernel.hook("read_cr3", lambda _cpu: root | 1)
    assert kernel.op("read_cr3").result == root | 1
    assert kernel.op("io_delay").calls == {}
    with pytest.raises(UsageError, match="has no op"):
        kernel.op("iret")


def test_a_call_writes_no_text(kernel: BootedKernel) -> None:
    text = kernel.session.text_sha256()
    done = kernel.call("strlen", kernel.symbols["linux_banner"])
    assert kernel.session.text_sha256() == text
    assert not [event for event in done.events if event.kind in {"poke", "exception"}]
    assert not done.changes


def test_interrupts_are_off_in_a_call_and_on_again_after_it(kernel: BootedKernel) -> None:
    assert not kernel.call("xen_save_fl_direct").result & IF
    assert kernel.call("xen_save_fl_direct", interrupts=True).result & IF


def test_a_function_may_sleep_where_interrupts_come(kernel: BootedKernel) -> None:
    assert kernel.call("msleep", 20, interrupts=True).ns >= 20_000_000
    kernel.restore()
    with pytest.raises(CallError, match="msleep did not come back: halted"):
        kernel.call("msleep", 20)


def test_a_hook_stands_in_front_of_an_op_and_goes_again(kernel: BootedKernel) -> None:
    text, seen = kernel.session.text_sha256(), []
    hook = kernel.hook("irq_disable", lambda cpu: seen.append(cpu.index))
    assert hook.sites > 300
    assert kernel.session.text_sha256() != text
    kernel.call("msleep", 20, interrupts=True)
    assert len(seen) == hook.calls > 10
    kernel.session.hooks.remove(hook)
    assert kernel.session.text_sha256() == text
    kernel.call("msleep", 20, interrupts=True)
    assert len(seen) == hook.calls


def test_a_hook_is_the_op_where_it_gives_a_result(kernel: BootedKernel) -> None:
    cr3 = kernel.call("xen_read_cr3").result
    slot = kernel.session.table.address(kernel.session.table.slot("read_cr3"))  # type: ignore[union-attr]
    kernel.hook("read_cr3", lambda _cpu: 0x1234000)
    assert kernel.call(kernel.vcpu.word(slot)).result == 0x1234000
    kernel.restore()
    assert kernel.call(kernel.vcpu.word(slot)).result == cr3


def test_the_swap_of_the_early_write_cr3_is_in_the_log(kernel: BootedKernel) -> None:
    switches = [(each.old, each.new) for each in kernel.session.slots.history if each.op == "write_cr3"]  # type: ignore[union-attr]
    assert switches == [("native_write_cr3", "xen_write_cr3_init"), ("xen_write_cr3_init", "xen_write_cr3")]


def test_a_panic_is_a_call_that_does_not_come_back_and_is_undone(kernel: BootedKernel) -> None:
    with pytest.raises(CallError, match="panic did not come back: crash"):
        kernel.call("panic", kernel.symbols["linux_banner"])
    kernel.restore()
    assert kernel.call("strlen", kernel.symbols["linux_banner"]).result > 50
    assert kernel.session.run_to("kernel_execve") is kernel.vcpu


def test_the_same_on_bare_metal(kernel_path: Callable[[str], Path]) -> None:
    with BootedKernel(Recipe(str(kernel_path(CLOUD)), "native"), load_backends().backends) as kernel:
        assert not kernel.call("native_save_fl").result & IF
        assert kernel.call("native_save_fl", interrupts=True).result & IF
        assert kernel.call("strlen", kernel.symbols["linux_banner"]).result > 50
        root = kernel.call("__native_read_cr3").result
        assert root & -0x1000 == kernel.vcpu.cr3 & -0x1000
        done = kernel.call("native_write_cr3", root)
        assert not done.changes
        hook = kernel.hook("irq_disable", lambda _cpu: None)  # its sites were cli
        kernel.call("msleep", 5, interrupts=True)
        assert hook.calls > 10
        assert hook.sites > 300
