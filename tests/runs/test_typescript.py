"""Typescripts on disk: what was written is read, and anything else is refused by the field that is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pvops_core.backends.keyboard import Look, Stroke
from pvops_core.errors import UsageError
from pvops_core.kinds import MachineKind
from pvops_core.runs.cell import Cell
from pvops_core.runs.observation import Observation, Outcome
from pvops_core.runs.orders import HookOrder
from pvops_core.runs.typescript import Typescript, TypescriptError, entries, of_run, packed, read_typescript

KERNEL = "ab" * 32
CELL = Cell("native", "", MachineKind.X86_64, guest="/vmlinuz", workload="quiet", options={"rtc": "0"})
MADE = Observation(CELL, Outcome.ENDED, virtual_ns=70, event_log_sha256="cd" * 32, versions={"python": "3.11"})
STROKES = (Stroke(Look(50), b"ls\r\x80\xff"), Stroke(Look(60, 2), b"", "Ctrl-A x"))
LOOKS = st.builds(Look, st.integers(0, 1 << 62), st.integers(0, 9))
ALL = st.builds(Stroke, LOOKS, st.binary(), st.text(), st.just(value=False))  # no prompt is had while one is written


def script(**changes: object) -> Typescript:
    others: dict[str, Any] = {
        "kernel": KERNEL,
        "initrd": "",
        "ops": None,
        "hooks": (HookOrder("write_cr3", "m:f"),),
        "switches": (),
        "until": "",
        "stop_at": "",
    }
    return of_run(MADE, STROKES, **(others | changes))


def ended(outcome: Outcome, ns: int) -> Typescript:
    return replace(script(), outcome=outcome, virtual_ns=ns)


def written(folder: Path, data: bytes) -> Path:
    path = folder / "typescript"
    path.write_bytes(data)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    found = read_typescript(written(tmp_path, packed(script())))
    assert found == script()
    assert found.strokes == STROKES
    assert found.cell == CELL


@given(st.lists(ALL, max_size=5))
def test_every_byte_and_reason_comes_back(strokes: list[Stroke]) -> None:
    assert tuple(strokes) == tuple(
        Stroke(Look(each.ns, each.look), each.typed.encode("latin-1"), each.leaving) for each in entries(strokes)
    )


def test_a_replay_ends_where_the_run_was_cut_or_soon_after_its_end() -> None:
    assert script().max_ns == 70 + 1_000_000_000
    assert ended(Outcome.TIMEOUT, 70).max_ns == 70
    assert ended(Outcome.DIED, 0).max_ns is None


def test_files_that_are_others_are_named_with_both_hashes() -> None:
    script().check(KERNEL, "", Path("file"))
    with pytest.raises(TypescriptError, match=r"file: kernel: the file says 'abab.*here it is 'efef") as caught:
        script().check("ef" * 32, "", Path("file"))
    assert (caught.value.field, caught.value.recorded, caught.value.here) == ("kernel", KERNEL, "ef" * 32)
    with pytest.raises(TypescriptError, match="initrd") as caught:
        script().check(KERNEL, "ef" * 32, Path("file"))
    assert (caught.value.recorded, caught.value.here) == ("", "ef" * 32)


DATA = packed(script())


@given(at=st.integers(0, len(DATA) - 1), bit=st.integers(0, 7))
def test_damage_is_always_seen(tmp_path_factory: pytest.TempPathFactory, at: int, bit: int) -> None:
    damaged = bytearray(DATA)
    damaged[at] ^= 1 << bit
    try:
        found = read_typescript(written(tmp_path_factory.mktemp("damaged"), bytes(damaged)))
    except TypescriptError:
        return
    assert found == script(), "white space between fields says nothing"


@given(length=st.integers(0, len(DATA) - 3))
def test_so_is_what_is_cut_off(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    with pytest.raises(TypescriptError):
        read_typescript(written(tmp_path_factory.mktemp("cut"), DATA[:length]))


def test_a_changed_value_is_told_as_damage_with_both_digests(tmp_path: Path) -> None:
    data = DATA.replace(b'"ns": 50', b'"ns": 51')
    with pytest.raises(TypescriptError, match="sha256: is damaged: the file says") as caught:
        read_typescript(written(tmp_path, data))
    assert len(caught.value.recorded) == len(caught.value.here) == 64


def forged(**changes: object) -> bytes:
    fields = {**json.loads(DATA), **changes}
    del fields["sha256"]
    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
    return json.dumps({**fields, "sha256": digest}).encode()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "pvops.typescript/2"}, "schema: the file says 'pvops.typescript/2', and here"),
        ({"kernel": "ab"}, r"\$.kernel"),
        ({"typed": [{"ns": -1, "look": 0, "typed": ""}]}, r"\$.typed\[0\].ns"),
        ({"typed": [{"ns": 1, "look": 0, "typed": "\u20ac"}]}, r"\$.typed\[0\].typed"),
        ({"outcome": "bliss"}, r"\$.outcome"),
        ({"more": 1}, "more"),
        ({"cell": {}}, r"\$.cell"),
    ],
)
def test_a_file_of_ones_own_making_is_held_to_what_is_declared(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypescriptError, match=message):
        read_typescript(written(tmp_path, forged(**changes)))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b"1" * 5000])
def test_what_is_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(TypescriptError):
        read_typescript(written(tmp_path, data))


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_typescript(tmp_path / "nowhere")
