"""The patch op of kernels that have one: templates read from the kernel, and what decides where none stands or fits."""

from __future__ import annotations

import struct

import pytest

from pvops_core.errors import ImageError
from pvops_core.images import KernelImage, load_image
from pvops_core.machine.cpu.model.identity import AMD, HYGON, CpuIdentity
from pvops_core.ops import LAYOUTS, Clobber
from pvops_core.patching.code.nops import IDEAL, NOPS, NopKind, nops_of_age
from pvops_core.patching.context import PatchContext
from pvops_core.patching.ownpatch import OwnTemplate, heeds_clobbers, own_patch
from pvops_core.patching.patchdefault import patch_site
from pvops_core.testing.images import ElfBuilder

BASE = 0xC1000000
SITE = 0xC2000000
SLOT = next(slot for slot in LAYOUTS["2.6.24"].slots if slot.op.name == "patch")
CODES = {
    "start_pv_irq_ops_irq_disable": b"\xfa",
    "start_pv_cpu_ops_iret": b"\xcf",
    "lgstart_cli": b"\xc7\x05\x00\x00\x20\xc1\0\0\0\0",
    "xen_irq_enable_direct": b"\x66\x81\x25\x00\x00\x20\xc1\xff\x00\x74\x05\xe8\x10\x00\x00\x00",
    "xen_irq_disable_direct": b"\xc6\x05\x01\x00\x20\xc1\x01",
}


def kernel(*functions: str, placed: int = 1, **more: bytes) -> KernelImage:
    """A kernel with these functions, 16 bytes each, and the templates."""
    builder, text = ElfBuilder(32, base=BASE), b""
    for name in functions:
        builder.symbol(name, BASE + len(text))
        text += b"\xc3".ljust(16, b"\xcc")
    for start, code in {**CODES, **more}.items():
        end = f"{start}_end" if start.startswith("xen") else start.replace("start", "end", 1)
        builder.symbol(start, BASE + len(text))
        builder.symbol(end, BASE + len(text) + len(code))
        if start == "xen_irq_enable_direct":
            builder.symbol(f"{start}_reloc", BASE + len(text) + 12)
        text += code
    builder.text(".text", text)
    builder.symbol("have_vcpu_info_placement", builder.section(".data", struct.pack("<I", placed)))
    return load_image(builder.build(), "small")


def patched(image: KernelImage, patcher: str, op: str, length: int, *, target: str = "f", clobbers: int = 7) -> bytes:
    layout = LAYOUTS["2.6.24"]
    function = image.symbols[target]
    context = PatchContext(
        layout, [function] * len(layout.slots), image.symbols.get("_paravirt_nop", -1), 0, NOPS[NopKind.P6]
    )
    patch = own_patch(image, SLOT, image.symbols[patcher])
    return patch_site(context, patch, layout.by_op(op).type, clobbers, b"\xff" * length, SITE)


def test_native_copies_what_lies_between_two_symbols() -> None:
    image = kernel("native_patch", "f")
    assert patched(image, "native_patch", "irq_disable", 10) == b"\xfa" + NOPS[NopKind.P6](9)
    assert patched(image, "native_patch", "iret", 7) == b"\xcf" + NOPS[NopKind.P6](6)


def test_native_leaves_alone_a_site_that_is_too_short() -> None:
    image = kernel("native_patch", "f", start_pv_cpu_ops_clts=b"\x0f\x06\x90\x90\x90\x90\x90")
    assert patched(image, "native_patch", "clts", 6) == b"\xff" * 6


def test_lguest_lets_the_default_decide_there() -> None:
    image = kernel("lguest_patch", "f")
    assert patched(image, "lguest_patch", "irq_disable", 10) == CODES["lgstart_cli"]
    assert patched(image, "lguest_patch", "irq_disable", 7, clobbers=Clobber.EAX) == b"\xff" * 7
    assert patched(image, "lguest_patch", "irq_disable", 7)[0] == 0xE8
    assert patched(image, "lguest_patch", "iret", 7)[0] == 0xE9


def test_xen_moves_the_call_inside_a_template() -> None:
    image = kernel("xen_patch", "f")
    code = patched(image, "xen_patch", "irq_enable", 16)
    distance = image.symbols["xen_irq_enable_direct"] - SITE + 0x10
    assert code == CODES["xen_irq_enable_direct"][:12] + struct.pack("<i", distance)
    assert patched(image, "xen_patch", "irq_enable", 10, clobbers=Clobber.EAX) == b"\xff" * 10
    assert patched(image, "xen_patch", "irq_disable", 7) == CODES["xen_irq_disable_direct"]


def test_xen_without_a_fixed_place_for_the_mask() -> None:
    assert patched(kernel("xen_patch", "f", placed=0), "xen_patch", "irq_disable", 7)[0] == 0xE8


def test_the_default_rule_itself_has_no_templates() -> None:
    """Xen's since 4.14."""
    image = kernel("paravirt_patch_default", "f", "_paravirt_ident_32")
    assert patched(image, "paravirt_patch_default", "irq_disable", 7)[0] == 0xE8
    assert patched(image, "paravirt_patch_default", "iret", 7)[0] == 0xE9
    nops = NOPS[NopKind.P6](6)
    assert patched(image, "paravirt_patch_default", "pte_val", 6, target="_paravirt_ident_32") == nops


@pytest.mark.parametrize(
    ("bits", "code", "heeds"),
    [
        (32, "83ec08 0fb7c9 0fb7542410 f7d2 85ca 750b c600e8", True),  # movzx ecx, cx; test edx, ecx
        (32, "837c240c04 760b c600e8 8b4c2404 29ca c3", False),  # ecx is but a place for the address
        (64, "450fb7c0 0fb7d2 4489c8 41f7d0 4185d0 750b c607e8", True),
        (64, "4183f904 760b 29ce 83ee05 c607e8 897701 c3", False),
        (64, "4183f904 760a 0f0b 31d2 c3", False),  # ud2; xor edx, edx
        (64, "c3", False),
    ],
)
def test_whether_a_call_is_left_alone_for_what_it_destroys(bits: int, code: str, heeds: bool) -> None:  # noqa: FBT001 - a case
    """4.18's, and stable kernels' before it, makes one all the same."""
    builder = ElfBuilder(bits, base=BASE)
    builder.text(".text", bytes.fromhex(code) + b"\x0f\xb7\xca\x0f\xb7\xd1")
    builder.symbol("paravirt_patch_call", BASE)
    builder.symbol("paravirt_patch_jmp", BASE + len(bytes.fromhex(code)))
    assert heeds_clobbers(load_image(builder.build(), "call")) is heeds


def test_a_kernel_that_does_not_name_what_makes_its_calls_heeds_them() -> None:
    assert heeds_clobbers(kernel("native_patch"))


def test_functions_that_give_their_argument_back_are_nothing_in_regparm() -> None:
    image = kernel("native_patch", "_paravirt_ident_32", "_paravirt_nop")
    nops = NOPS[NopKind.P6](6)
    assert patched(image, "native_patch", "pte_val", 6, target="_paravirt_ident_32") == nops
    assert patched(image, "native_patch", "pte_val", 6, target="_paravirt_nop") == nops


def test_a_template_for_one_function_alone() -> None:
    image = kernel("native_patch", "__raw_callee_save___native_queued_spin_unlock", "patch_data_xxl")
    templates = own_patch(image, SLOT, image.symbols["native_patch"]).templates
    unlock = image.symbols["__raw_callee_save___native_queued_spin_unlock"]
    assert templates["queued_spin_unlock"] == OwnTemplate(b"\xc6\0\0", needs=unlock)
    assert templates["write_cr3"] == OwnTemplate(bytes.fromhex("0f22d8"))
    patch = own_patch(image, SLOT, image.symbols["native_patch"])
    assert patch.inlines("write_cr3", SITE, bytes.fromhex("0f22d8 90"))
    assert not patch.inlines("write_cr3", SITE, b"\xe8")
    assert not patch.inlines("cpuid", SITE, b"\xe8")


def test_a_kernel_without_xen_has_the_table_of_locks_alone() -> None:
    image = kernel("native_patch", "__raw_callee_save___native_queued_spin_unlock", "patch_data_lock")
    templates = own_patch(image, SLOT, image.symbols["native_patch"]).templates
    assert templates["queued_spin_unlock"].code == b"\xc6\0\0"


@pytest.mark.parametrize("address", [BASE, BASE + 16, 0])
def test_a_patch_op_whose_rules_are_not_known(address: int) -> None:
    image = kernel("vmi_patch", "native_patch")
    with pytest.raises(
        ImageError, match="known are native_patch, lguest_patch, xen_patch, paravirt_patch_default"
    ) as caught:
        own_patch(image, SLOT, address + (address == BASE + 16))
    assert caught.value.field == "pv_init_ops.patch"


def test_pairs_of_symbols_that_are_no_template() -> None:
    builder = ElfBuilder(32, base=BASE)
    builder.text(".text", b"\x90" * 256)
    for name, at in (("native_patch", 0), ("start_far", 1), ("end_far", 200), ("start_back", 9), ("end_back", 3)):
        builder.symbol(name, BASE + at)
    builder.symbol("start_beyond", BASE + 250)
    builder.symbol("end_beyond", BASE + 300)
    image = load_image(builder.build(), "odd")
    assert own_patch(image, SLOT, BASE).templates == {}


@pytest.mark.parametrize(
    ("bits", "long", "symbol", "kind"),
    [
        (32, False, "noptypes", NopKind.GENERIC),
        (32, True, "noptypes", NopKind.P6),
        (32, True, "find_nop_table", NopKind.GENERIC),
        (64, True, "find_nop_table", NopKind.P6),
        (64, False, "find_nop_table", NopKind.K8),
        (64, True, "arch_init_ideal_nops", NopKind.K8),
    ],
)
def test_nops_by_what_the_kernel_has(bits: int, long: bool, symbol: str, kind: NopKind) -> None:  # noqa: FBT001 - a case
    builder = ElfBuilder(bits, base=BASE)
    builder.text(".text", (b"".join(NOPS[NopKind.P6].sequences) if long else b"") + b"\xcc")
    builder.symbol(symbol, BASE)
    assert nops_of_age(load_image(builder.build(), "nops")) is NOPS[kind]


INTEL_P4, K7, K8 = CpuIdentity(family=15, model=2), CpuIdentity(AMD, 6, 8), CpuIdentity(AMD, 15, 5)
FAM10, ATOM, NEHALEM = CpuIdentity(AMD, 16, 2), CpuIdentity(model=0x1C), CpuIdentity(model=0x3A)
SAID_5 = CpuIdentity(family=5)


@pytest.mark.parametrize(
    ("bits", "symbol", "cpu", "kind"),
    [
        (32, "noptypes", INTEL_P4, NopKind.P6),
        (32, "noptypes", K7, NopKind.K7),
        (32, "noptypes", K8, NopKind.K8),
        (32, "noptypes", CpuIdentity("CentaurHauls", 6, 7), NopKind.GENERIC),
        (32, "find_nop_table", FAM10, NopKind.K8),
        (64, "find_nop_table", K8, NopKind.K8),
        (32, IDEAL, ATOM, NopKind.GENERIC),
        (64, IDEAL, ATOM, NopKind.P6),
        (64, IDEAL, NEHALEM, NopKind.P6),
        (32, IDEAL, SAID_5, NopKind.GENERIC),
        (32, IDEAL, K7, NopKind.K7),
        (64, IDEAL, K8, NopKind.K8),
        (64, IDEAL, FAM10, NopKind.P6),
        (64, IDEAL, CpuIdentity(HYGON, 24, 0), NopKind.K8),
    ],
)
def test_nops_by_whose_processor_it_is(bits: int, symbol: str, cpu: CpuIdentity, kind: NopKind) -> None:
    builder = ElfBuilder(bits, base=BASE)
    code = bytes.fromhex("3c02 7402 90 c3")  # cmp al, 2: the kernel asks for AMD's, and not for Hygon's
    builder.text(".text", code + b"".join(NOPS[NopKind.P6].sequences))
    builder.symbol(symbol, BASE)
    builder.symbol("next", BASE + len(code))
    assert nops_of_age(load_image(builder.build(), "nops"), cpu) is NOPS[kind]


def test_a_kernel_that_does_not_ask_for_amds_later_families() -> None:
    builder = ElfBuilder(64, base=BASE)
    builder.text(".text", bytes.fromhex("84c0 c3 3c02"))  # the comparison is another function's
    builder.symbol(IDEAL, BASE)
    builder.symbol("next", BASE + 3)
    assert nops_of_age(load_image(builder.build(), "nops"), FAM10) is NOPS[NopKind.K8]
