"""What a failed test shows of its machine: whole instructions, no heading without lines, nothing twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pvops_core.patching.code.disasm import listing

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["pytester"]
FAILING = """
import pytest

pytestmark = pytest.mark.pvops_kinds("x86_64")

def test_in_a_function(vcpu, session):
    vcpu.rip = session.guest.symbols["start_kernel"] + 1
    vcpu.set("rbx", 0x1234)
    assert 0

def test_untouched(machine):
    assert 0

def test_effect(call):
    done = call("write_cr3", call("read_cr3").result)
    assert done.changes
"""
CODE = re.compile(r"^  [> ] (0x[0-9a-f]+)  ((?:[0-9a-f]{2} )*[0-9a-f]{2}) +(\S.*)$", re.MULTILINE)


def test_a_report_is_whole_and_says_each_thing_once(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile(FAILING)
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(failed=3)
    shown = result.stdout.str()
    blocks = shown.split("pvops machine")[1:]
    assert len(blocks) == 3
    for block in blocks:
        _whole(CODE.findall(block))
        assert len(re.findall(r"^  > 0x", block, re.MULTILINE)) == 1
    _no_heading_is_empty(result.outlines)
    assert "registers that changed since the test began:" in blocks[0]
    assert "registers that changed since the test began:" not in blocks[1]
    report, _, _ = shown.partition("short test summary info")  # where CI is set pytest says all once more there
    assert report.count("Effect(what=") == 1


def _whole(lines: list[tuple[str, str, str]]) -> None:
    """Each line's bytes are one instruction, which says the same when it is read alone; the next follows on it."""
    assert len(lines) >= 4
    ends = []
    for address, data, text in lines:
        code = bytes.fromhex(data)
        ((begin, alone, says),) = listing(code, int(address, 16), 64)
        assert (begin, alone, says) == (int(address, 16), code, text)
        ends.append(begin + len(code))
    assert [int(address, 16) for address, _data, _text in lines[1:]] == ends[:-1]


def _no_heading_is_empty(lines: list[str]) -> None:
    headings = [number for number, line in enumerate(lines) if re.match(r"(registers|last) .*:$", line)]
    assert headings
    assert [lines[number] for number in headings if not lines[number + 1].startswith("  ")] == []
    sections = [number for number, line in enumerate(lines) if re.match(r"-+ .* -+$", line)]
    assert [lines[number] for number in sections if re.match(r"-+ .* -+$|\s*$", lines[number + 1])] == []
