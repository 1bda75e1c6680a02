from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import load_backends
from pvops_core.testing.booted import BootedKernel, Recipe
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pvops_core.backends import Backend


FUNCTIONS_64 = {
    "add": bytes.fromhex("488d0477 c3"),  # lea rax, [rdi + rsi * 2]; ret
    "store": bytes.fromhex("48893c25000f0001 c3"),  # mov [CELL], rdi; ret
    "seventh": bytes.fromhex("488b442408 c3"),  # mov rax, [rsp + 8]; ret
    "flags": bytes.fromhex("9c58 c3"),  # pushfq; pop rax; ret
    "waits": bytes.fromhex("f4 c3"),  # hlt; ret
    "loops": bytes.fromhex("ebfe"),
    "strays": bytes.fromhex("5850 ffe0"),  # pop rax; push rax; jmp rax: to the return address, a word too low
    "off": bytes.fromhex("66ba0406 66b80020 66ef c3"),
}


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    return dict(load_backends().backends)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kernel") / "vmlinux"
    path.write_bytes(SelfPatching.of("mmu.write_cr3").build(functions=FUNCTIONS_64).data)
    return path


@pytest.fixture(scope="module")
def booted(image: Path, backends: dict[str, Backend]) -> Iterator[BootedKernel]:
    with BootedKernel(Recipe(str(image), "native", place="patched"), backends) as kernel:
        yield kernel


@pytest.fixture
def kernel(booted: BootedKernel) -> BootedKernel:
    booted.restore()
    return booted
