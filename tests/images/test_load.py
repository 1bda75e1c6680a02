from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pvops_core.patching.sites import read_sites

if TYPE_CHECKING:
    from pvops_core.images import KernelImage


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "release", "machine", "sites"),
    [
        ("vmlinuz-6.1.0-56-cloud-amd64", "6.1.0-56-cloud-amd64", "x86_64", 3679),
        ("vmlinuz-6.1.0-56-amd64", "6.1.0-56-amd64", "x86_64", 3848),
        ("vmlinuz-6.1.0-50-686-pae", "6.1.0-50-686-pae", "i386", 265),
    ],
)
def test_debian_kernel(
    kernels: Callable[[str], KernelImage], name: str, release: str, machine: str, sites: int
) -> None:
    image = kernels(name)
    assert (image.release, image.machine) == (release, machine)
    assert len(read_sites(image)) == sites
    assert image.symbol_table.source == "kallsyms"
    section = image.section_at(image.symbols["_text"])
    assert section is not None
    assert section.name == ".text"
