"""``struct report``: where C has it, and damaged ones."""

from __future__ import annotations

import pytest

from pvops_core.errors import MachineError
from pvops_core.guests import LAYOUTS, Report, Status, builtin_guest
from pvops_core.guests.builtin import report
from tests.guests.builtin.structures import fields


@pytest.mark.parametrize("name", LAYOUTS)
def test_report_fields_lie_where_c_has_them(name: str) -> None:
    table = fields(builtin_guest(name).image, ".report_layout")
    size = table.pop("")[1]
    data = bytearray(size)
    values = {field: number + 1 for number, field in enumerate(table)}
    values |= {"magic": report.MAGIC, "size": size, "status": Status.DONE}
    for field, (offset, width) in table.items():
        data[offset : offset + min(width, 8)] = values[field].to_bytes(min(width, 8), "little")
    found = Report.unpack(bytes(data))
    renamed = {"results": "result_count", "exit_codes": ""}
    for field, value in values.items():
        attribute = renamed.get(field, field)
        if attribute and attribute not in {"magic", "size"}:
            assert getattr(found, attribute) == value, field
    assert found.exit_codes[0] == values["exit_codes"]


def test_fresh_report_is_running() -> None:
    guest = builtin_guest("2.6.24")
    found = Report.read(guest.symbols, guest.image.read)
    assert found.status is Status.RUNNING
    assert found.results["status"] == "running"
    assert found.counts["pokes"] == 0


def test_damaged_report_is_told() -> None:
    with pytest.raises(MachineError, match="damaged"):
        Report.unpack(bytes(report.FORMAT.size))
