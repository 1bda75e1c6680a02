"""The page of hypercalls."""

from __future__ import annotations

from pvops_xen.domain.stubs import hypercall_page


def test_a_page_of_stubs_has_one_of_32_bytes_a_number() -> None:
    page = hypercall_page(64)
    assert len(page) == 4096
    assert page[32 * 17 :].startswith(bytes.fromhex("51 4153 b811000000 0f05 415b 59 c3"))
    assert page[32 * 23 :].startswith(bytes.fromhex("51 4153 50 b817000000 0f05 cc"))
    assert hypercall_page(32)[32 * 23 :].startswith(bytes.fromhex("50 b817000000 cd82"))
