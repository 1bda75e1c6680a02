"""struct boot_params: offsets that the kernel's own documents give, and gcc's layout."""

from __future__ import annotations

import struct

import pytest

from pvops_core.images import bzimage
from pvops_core.images.bootparams import BITS, BOOT_PARAMS, BOOTPARAM, E820_ENTRY, one_region
from pvops_core.testing.headers import check_layout

# Documentation/arch/x86/zero-page.rst and boot.rst, "Real-mode kernel header".
OFFSETS = {
    "acpi_rsdp_addr": 0x070,
    "ext_ramdisk_image": 0x0C0,
    "cc_blob_address": 0x13C,
    "edid_info": 0x140,
    "efi_info": 0x1C0,
    "e820_entries": 0x1E8,
    "sentinel": 0x1EF,
    "hdr": 0x1F1,
    "hdr.root_flags": 0x1F2,
    "hdr.boot_flag": 0x1FE,
    "hdr.header": 0x202,
    "hdr.version": 0x206,
    "hdr.kernel_version": 0x20E,
    "hdr.type_of_loader": 0x210,
    "hdr.loadflags": 0x211,
    "hdr.ramdisk_image": 0x218,
    "hdr.ramdisk_size": 0x21C,
    "hdr.cmd_line_ptr": 0x228,
    "hdr.initrd_addr_max": 0x22C,
    "hdr.cmdline_size": 0x238,
    "hdr.hardware_subarch": 0x23C,
    "hdr.payload_offset": 0x248,
    "hdr.setup_data": 0x250,
    "hdr.pref_address": 0x258,
    "hdr.kernel_info_offset": 0x268,
    "edd_mbr_sig_buffer": 0x290,
    "e820_table": 0x2D0,
    "eddbuf": 0xD00,
}


@pytest.mark.parametrize("bits", [32, 64])
def test_the_fields_are_where_the_documents_say(bits: int) -> None:
    assert {path: BOOT_PARAMS.offset(path, bits) for path in OFFSETS} == OFFSETS
    assert BOOT_PARAMS.size(bits) == 4096
    assert E820_ENTRY.at(bits).form.size == 20


@pytest.mark.parametrize("bits", [32, 64])
def test_a_compiler_lays_them_out_alike(bits: int) -> None:
    assert check_layout([BOOTPARAM], bits) > 80


def test_what_leads_to_a_payload_is_where_the_header_has_it() -> None:
    fields = {
        "hdr.setup_sects": bzimage.SETUP_SECTS,
        "hdr.boot_flag": bzimage.BOOT_FLAG,
        "hdr.header": bzimage.HEADER_MAGIC,
        "hdr.version": bzimage.VERSION,
        "hdr.kernel_version": bzimage.KERNEL_VERSION,
        "hdr.payload_offset": bzimage.PAYLOAD_OFFSET,
        "hdr.setup_data": bzimage.HEADER_END,
    }
    assert {path: BOOT_PARAMS.offset(path, BITS) for path in fields} == fields


def test_a_map_of_one_region() -> None:
    assert one_region(0x1234_5678_9ABC) == struct.pack("<IQQI", 1, 0, 0x1234_5678_9ABC, 1)
