"""Xen's structures: sizes and offsets known from Xen itself, gcc's layout of the declarations, all fields in use."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import pvops_xen
import pytest
from pvops_xen import public

from pvops_core.headers import Fields, Header
from pvops_core.testing.headers import check_layout

# sizeof in 64 and in 32 bits, by a compiler that was given Xen 4.17's own public headers.
SIZES = {
    "start_info": (1168, 1112),
    "shared_info": (3136, 2344),
    "vcpu_info": (64, 64),
    "vcpu_time_info": (32, 32),
    "arch_vcpu_info": (16, 24),
    "vcpu_guest_context": (5168, 2800),
    "cpu_user_regs": (200, 68),
    "trap_info": (16, 8),
    "mmu_update": (16, 16),
    "mmuext_op": (24, 12),
    "multicall_entry": (64, 32),
    "vcpu_runstate_info": (48, 44),
    "vcpu_set_singleshot_timer": (16, 12),
    "vcpu_register_vcpu_info": (16, 16),
    "sched_poll": (24, 16),
    "evtchn_status": (24, 24),
    "evtchn_init_control": (24, 24),
    "evtchn_op": (28, 28),
    "physdev_set_iobitmap": (16, 8),
    "physdev_map_pirq": (40, 36),
    "physdev_op": (24, 16),
    "callback_register": (16, 12),
    "xen_memory_reservation": (32, 20),
    "xen_memory_exchange": (72, 44),
    "xen_mem_acquire_resource": (32, 28),
    "xen_vnuma_topology_info": (40, 40),
    "grant_entry_v2": (16, 16),
    "gnttab_map_grant_ref": (32, 32),
    "gnttab_setup_table": (24, 16),
    "gnttab_copy": (40, 24),
    "xencons_interface": (3088, 3088),
    "xenstore_domain_interface": (2076, 2076),
    "xsd_sockmsg": (16, 16),
    "xen_pod_target": (40, 36),
    "xen_mem_access_op": (32, 24),
    "xen_hvm_xentrace": (32, 32),
    "xen_platform_op": (136, 136),
    "xen_domctl": (144, 144),
}
# offsetof, of fields that stand behind padding or differ between the widths.
OFFSETS = {
    ("shared_info", "evtchn_mask"): (2560, 2176),
    ("shared_info", "arch.max_pfn"): (3088, 2316),
    ("start_info", "console.domU.evtchn"): (80, 56),
    ("start_info", "first_p2m_pfn"): (1152, 1104),
    ("vcpu_guest_context", "ctrlreg"): (4984, 2716),
    ("vcpu_guest_context", "event_callback_eip"): (5112, 2784),
    ("vcpu_info", "arch.cr2"): (16, 8),
    ("gnttab_map_grant_ref", "dev_bus_addr"): (24, 24),
    ("sched_poll", "timeout"): (16, 8),
    ("xen_pod_target", "domid"): (32, 32),
}
HEADERS = [value for value in vars(public).values() if isinstance(value, Header)]


def header_of(name: str) -> Header:
    return next(header for header in HEADERS if f" {name} {{" in header.path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_xens(name: str) -> None:
    structure = header_of(name)[name]
    assert (structure.size(64), structure.size(32)) == SIZES[name]


@pytest.mark.parametrize(("name", "path"), OFFSETS)
def test_offsets_are_xens(name: str, path: str) -> None:
    structure = header_of(name)[name]
    assert (structure.offset(path, 64), structure.offset(path, 32)) == OFFSETS[name, path]


@pytest.mark.parametrize("bits", [64, 32])
def test_a_compiler_lays_them_out_alike(bits: int) -> None:
    assert check_layout(HEADERS, bits) > 500


def test_every_field_that_is_used_is_there() -> None:
    """What each module takes of a structure, in both widths, or in the one that it is kept for by a dictionary."""
    seen = 0
    for info in pkgutil.walk_packages(pvops_xen.__path__, "pvops_xen."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, Fields):
                assert all(value.at(bits) for bits in (32, 64))
                seen += 1
            elif isinstance(value, dict):
                for bits, fields in value.items():
                    if isinstance(fields, Fields):
                        assert fields.at(bits) if bits in {32, 64} else all(fields.at(each) for each in (32, 64))
                        seen += 1
    assert seen > 5


def test_the_declarations_go_with_the_package() -> None:
    assert {path.name for path in Path(public.__file__).parent.glob("*.h")} == {header.path.name for header in HEADERS}
