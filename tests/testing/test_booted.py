"""Calls of single functions in a booted kernel, and the fixture that gives one, on kernels of a few hundred bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import MachineError, UsageError
from pvops_core.testing.booted import KEPT, BootedKernel, Recipe, find_image
from pvops_core.testing.call import CallError
from pvops_core.testing.changes import StateChange, registers_of
from pvops_core.testing.fixtures.keptmachine import Pool
from tests.session.selfpatching import CELL, HEAD, SelfPatching

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.backends import Backend

FUNCTIONS_32 = {
    "add": bytes.fromhex("8d0450 c3"),  # lea eax, [eax + edx * 2]; ret
    "store": bytes.fromhex("a3000f0001 c3"),
    "flags": bytes.fromhex("9c58 c3"),
    "fourth": bytes.fromhex("8b442404 c3"),  # mov eax, [esp + 4]; ret
}

pytest_plugins = ["pytester"]


@pytest.mark.parametrize("interrupts", [False, True])
def test_a_call_gives_the_result_and_leaves_the_cpu_where_it_stood(kernel: BootedKernel, *, interrupts: bool) -> None:
    before = registers_of(kernel.vcpu)
    done = kernel.call("add", 40, 1, interrupts=interrupts)
    assert (done.what, done.result) == ("add", 42)
    assert not done.changes
    assert done.ns > 0
    assert registers_of(kernel.vcpu) == before
    assert kernel.call(kernel.symbols["add"], 1, 1, interrupts=interrupts).result == 3
    assert kernel.session.run().reason == "poweroff"


def test_more_arguments_than_registers_lie_on_an_aligned_stack(kernel: BootedKernel) -> None:
    assert kernel.call("seventh", 1, 2, 3, 4, 5, 6, 77).result == 77
    assert kernel.call("seventh", 1, 2, 3, 4, 5, 6, 78, 79).result == 78


def test_calls_of_a_32_bit_kernel(tmp_path: Path, backends: dict[str, Backend]) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(SelfPatching.of("cpu.io_delay", layout="6.1-32").build(functions=FUNCTIONS_32).data)
    with BootedKernel(Recipe(str(path), "native", place="patched"), backends) as kernel:
        assert kernel.call("add", 40, 1).result == 42
        assert kernel.call("store", 7).changes.memory == {CELL: StateChange(0, 7)}
        assert kernel.call("fourth", 1, 2, 3, 44).result == 44
        kernel.vcpu.rflags |= 0x200
        assert not kernel.call("flags").result & 0x200
        assert kernel.call("flags", interrupts=True).result & 0x200


@pytest.mark.parametrize(
    ("function", "interrupts", "message"),
    [
        ("waits", False, "waits did not come back: halted .*vcpu 0 at waits"),
        ("waits", True, "waits did not come back: dead"),
        ("loops", False, "loops did not come back: timeout 100000 ns.*; vcpu 0 at loops"),
        ("loops", True, "loops did not come back: timeout"),
        ("off", False, "off did not come back: poweroff"),
        ("off", True, "off did not come back: poweroff"),
        ("strays", False, "strays did not come back: strayed"),
    ],
)
def test_a_function_that_does_not_come_back(
    kernel: BootedKernel, function: str, message: str, *, interrupts: bool
) -> None:
    with pytest.raises(CallError, match=message):
        kernel.call(function, interrupts=interrupts, max_ns=100_000)
    kernel.restore()
    assert kernel.call("add", 1, 2).result == 5


def test_what_there_is_not_is_refused(kernel: BootedKernel, image: Path, backends: dict[str, Backend]) -> None:
    with pytest.raises(UsageError, match="no symbol 'nothing'"):
        kernel.call("nothing")
    with pytest.raises(UsageError, match="no symbol 'run_init_process'"):
        BootedKernel(Recipe(str(image), "native", place="init"), backends)
    with pytest.raises(MachineError, match="did not come to loops: poweroff"):
        BootedKernel(Recipe(str(image), "native", place="loops"), backends)


def test_kernels_are_kept_and_go_back(image: Path, backends: dict[str, Backend]) -> None:
    pool = Pool(partial(BootedKernel, backends=backends), KEPT)
    recipe = Recipe(str(image), "native", place="patched")
    first = pool.get(recipe)
    first.call("store", 5)
    assert pool.get(recipe) is first
    assert first.machine.memory.u64(CELL) == 0
    others = [pool.get(Recipe(str(image), "native", place="patched", seed=seed)) for seed in (1, 2)]
    assert pool.get(recipe) not in (first, *others)
    pool.close()


def test_images_are_found(image: Path, tmp_path: Path) -> None:
    assert find_image(str(image)) == image
    assert find_image(str(image.parent)) == image
    assert find_image(str(tmp_path)) is None
    assert find_image(str(tmp_path / "nothing")) is None


TEST = """
import pytest

pytestmark = pytest.mark.pvops_at("patched")

def test_first(kernel):
    assert kernel.call("add", 40, 1).result == 42
    assert kernel.call("store", 1).changes

def test_second(kernel):
    assert kernel.call("store", 1).changes

@pytest.mark.pvops_at("add")
def test_elsewhere(kernel):
    pass

def test_failing(kernel):
    assert kernel.call("add", 1, 1).result == 0
"""


def test_the_fixture(pytester: pytest.Pytester, image: Path) -> None:
    pytester.makepyfile(TEST)
    result = pytester.runpytest_subprocess(
        f"--pvops-kernel={image}", "--pvops-backend=native,lguest", "-p", "no:cacheprovider", "-rs"
    )
    result.assert_outcomes(passed=2, failed=1, skipped=4, errors=1)
    result.stdout.fnmatch_lines(["*pytest *test_failing* --pvops-kernel *", "vcpu 0 at *", "last events of *"])
    result.stdout.fnmatch_lines(["*lguest: backend 'lguest' is no x86_64 machine*"])


def test_head_is_where_the_kernel_begins(kernel: BootedKernel) -> None:
    assert kernel.symbols["start_kernel"] == HEAD
