"""Modules, linked to their kernel as it does when it loads them."""

from __future__ import annotations

import lzma
import random
import struct
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.images.module import MODULES, link_module, looks_like_module
from pvops_core.ops import LAYOUTS
from pvops_core.patching.altinstructions.whole import plan_alternatives
from pvops_core.patching.kernel import plan_kernel, read_kernel
from pvops_core.patching.sites import read_sites
from pvops_core.testing.images import make_bzimage
from pvops_core.testing.kernels import SmallKernel
from pvops_core.testing.modules import SITE, SmallModule

if TYPE_CHECKING:
    from pathlib import Path

    from pvops_core.images import KernelImage

LAYOUT = LAYOUTS["7.2-64"]
TYPES = [0, 22, 28, 72, 73, 77]
MODULE = SmallModule(LAYOUT, TYPES, release="7.2.1-test").build()


def kernel(release: str = "7.2.1-test") -> KernelImage:
    small = SmallKernel(LAYOUT, types=range(len(LAYOUT.slots)), typed=True)
    return load_image(make_bzimage(small.builder().build(), release=release), "kernel")


def test_its_calls_go_through_the_kernels_tables() -> None:
    image = link_module(MODULE, kernel())
    sites = read_sites(image)
    assert [site.type for site in sites] == TYPES
    assert [site.address for site in sites] == [MODULES["x86_64"] + SITE * index for index in range(len(TYPES))]
    assert image.symbol_at(sites[0].address) == ("own_function", 0)
    assert image.symbols["pv_ops"] == image.kernel.symbols["pv_ops"]
    assert image.types is image.kernel.types
    assert image.release == "7.2.1-test"
    plan = plan_kernel(read_kernel(image), [], 1)
    for site in plan.sites:
        target = plan.table[site.site.type]
        distance = int.from_bytes(site.final[1:5], "little", signed=True)
        assert target == plan.kernel.nop_address or site.site.address + 5 + distance == target
    assert len(plan_alternatives(plan, frozenset()).groups) == len(TYPES)


def test_it_lies_where_the_running_kernel_says(tmp_path: Path) -> None:
    path = tmp_path / "small.ko.xz"
    path.write_bytes(lzma.compress(MODULE))
    assert looks_like_module(path)
    image = link_module(path, kernel(), addresses={".text": 0xFFFFFFFFC0201000})
    assert image.path == str(path)
    assert read_sites(image)[1].address == 0xFFFFFFFFC0201000 + SITE
    assert image.symbols["own_function"] == 0xFFFFFFFFC0201000


def test_what_another_module_would_have_stays_open() -> None:
    image = link_module(MODULE, kernel())
    section = image.section(".text")
    assert section is not None
    assert image.read(section.address + SITE * len(TYPES), 5) == b"\xe8\0\0\0\0"
    assert image.read(image.kernel.symbols["pv_ops"], 8) == image.kernel.read(image.kernel.symbols["pv_ops"], 8)


def test_a_kernel_is_no_module(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(make_bzimage(SmallKernel(LAYOUT).builder().build()))
    assert not looks_like_module(path)
    assert not looks_like_module(tmp_path / "absent")


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (
            SmallModule(LAYOUT, TYPES, release="6.1.1").build(),
            "vermagic: is for x86_64 6.1.1, and kernel is x86_64 7.2.1",
        ),
        (SmallModule(LAYOUT, TYPES, machine=40).build(), "is for machine EM_ARM, not x86"),
        (SmallKernel(LAYOUT).builder().build(), "is of type ET_EXEC, not a module"),
        (b"\xfd7zXZ\0" + bytes(20), "damaged xz stream"),
        (b"nothing", "neither a bzImage nor an ELF image"),
        (MODULE[:200], "reach past the end"),
    ],
)
def test_what_cannot_be_loaded_is_told(module: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        link_module(module, kernel(), "small.ko")


def spoilt(at: int, change: bytes, section: str) -> bytes:
    place = link_module(MODULE, kernel()).section(section)
    assert place is not None
    raw = bytearray(MODULE)
    raw[place.offset + at : place.offset + at + len(change)] = change
    return bytes(raw)


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (
            spoilt(0, struct.pack("<Q", 1 << 40), ".rela1"),
            r"\.rela1\[0\]: is for 0x10000000000, past the end of .text",
        ),
        (spoilt(24 + 8, struct.pack("<Q", 99 << 32 | 2), ".rela1"), r"\.rela1\[1\]: is of type 2 and symbol 99"),
        (spoilt(8, struct.pack("<Q", 3 << 32 | 77), ".rela2"), r"\.rela2\[0\]: is of type 77"),
    ],
)
def test_relocations_that_make_no_sense_are_named(module: bytes, says: str) -> None:
    with pytest.raises(ImageError, match=says):
        link_module(module, kernel())


def test_a_module_without_symbols_is_refused() -> None:
    image = link_module(MODULE, kernel())
    raw = bytearray(MODULE)
    (table,) = struct.unpack_from("<Q", raw, 40)
    number = next(section.index for section in image.sections if section.name == ".symtab")
    struct.pack_into("<I", raw, table + 64 * number + 4, 1)
    with pytest.raises(ImageError, match="has no symbol table"):
        link_module(bytes(raw), kernel())


def test_damaged_modules_are_linked_or_refused() -> None:
    rng, whole = random.Random(11), kernel()
    linked = 0
    for _ in range(400):
        raw = bytearray(MODULE)
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] = rng.choice((0, 1, 2, 0x7F, 0xFF, rng.randrange(256)))
        try:
            plan_kernel(read_kernel(link_module(bytes(raw), whole)), [], 1)
            linked += 1
        except ImageError:
            continue
    assert 0 < linked < 400
