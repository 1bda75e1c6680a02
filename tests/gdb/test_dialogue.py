"""What is answered to packets: by the protocol, for both widths, and whatever was done to the packets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from pvops_core.gdb.description import registers
from pvops_core.gdb.dialogue import Dialogue, Leave, Resume
from pvops_core.gdb.packets import PACKET_SIZE
from pvops_core.gdb.stopplaces import MOST, Hit, StopPlace
from pvops_core.gdb.target import GdbTarget
from tests.gdb.mutations import mutated

if TYPE_CHECKING:
    from pvops_core.session import Session
    from tests.gdb.conftest import MakeSession

MUTATED = 10_000


class Asked:
    """A dialogue about a session, and short ways to ask."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.target = GdbTarget(session)
        self.dialogue = Dialogue(self.target)
        self.dialogue.stopped(5, 1)
        self.registers = registers(session.machine.kind.bits)

    def one(self, packet: bytes | str) -> bytes:
        answer = self.dialogue.answer(packet.encode() if isinstance(packet, str) else packet)
        assert isinstance(answer, tuple)
        assert len(answer) == 1
        return answer[0]

    def text(self, packet: bytes | str) -> str:
        return self.one(packet).decode()

    def number(self, name: str) -> int:
        return next(number for number, each in enumerate(self.registers) if each.name == name)

    def register(self, name: str) -> int:
        return int.from_bytes(bytes.fromhex(self.text(f"p{self.number(name):x}")), "little")

    def set(self, name: str, value: int) -> str:
        size = self.registers[self.number(name)].size
        return self.text(f"P{self.number(name):x}={value.to_bytes(size, 'little').hex()}")


@pytest.fixture
def asked(make_session: MakeSession) -> Asked:
    return Asked(make_session(vcpus=2))


@pytest.fixture(params=[64, 32])
def either(make_session: MakeSession, request: pytest.FixtureRequest) -> Asked:
    return Asked(make_session(bits=request.param))


def test_what_is_supported_is_told_and_the_unknown_is_empty(asked: Asked) -> None:
    told = asked.text("qSupported:swbreak+;multiprocess+").split(";")
    assert f"PacketSize={PACKET_SIZE:x}" in told
    assert {"QStartNoAckMode+", "qXfer:features:read+", "swbreak+", "vContSupported+"} < set(told)
    assert not any(each.startswith("multiprocess") for each in told)
    for unknown in ("vMustReplyEmpty", "!", "qTStatus", "vFile:open:", "QNonStop:1", "qCRC:0,4", "R00", "\xff", ""):
        assert asked.text(unknown) == ""
    assert asked.text("vCont?") == "vCont;c;C;s;S"
    assert asked.dialogue.acknowledges
    assert asked.text("QStartNoAckMode") == "OK"
    assert not asked.dialogue.acknowledges


def test_the_description_is_of_all_registers_in_order(either: Asked) -> None:
    reply, text, at = "m", "", 0
    while reply[:1] == "m":
        reply = either.text(f"qXfer:features:read:target.xml:{at:x},300")
        text += reply[1:]
        at = len(text)
    tree = ET.fromstring(text.replace('<!DOCTYPE target SYSTEM "gdb-target.dtd">', ""))
    named = [(reg.get("name"), int(reg.get("bitsize") or 0)) for reg in tree.iter("reg")]
    assert named == [(each.name, each.bits) for each in either.registers]
    types = {each.get("id") for kind in ("flags", "union", "vector") for each in tree.iter(kind)}
    plain = re.compile(r"u?int\d*|code_ptr|data_ptr|i387_ext")
    assert all(plain.fullmatch(reg.get("type") or "") or reg.get("type") in types for reg in tree.iter("reg"))
    assert either.text("qXfer:features:read:other.xml:0,10") == "E22"
    assert either.text("qXfer:threads:read::0,fff").startswith("l<?xml")
    assert len(bytes.fromhex(either.text("g"))) == sum(each.size for each in either.registers)


def test_registers_are_those_of_the_vcpu_and_can_be_set(either: Asked) -> None:
    vcpu = either.session.machine.vcpus[0]
    wide = vcpu.machine.kind.bits == 64
    general, ip, sp = ("rbx", "rip", "rsp") if wide else ("ebx", "eip", "esp")
    for name, value in ((general, 0x1234), (sp, 0x5678), ("eflags", 0x246), ("cr2", 0x7777)):
        assert either.set(name, value) == "OK"
        assert either.register(name) == value
    assert (vcpu.get(general), vcpu.rsp, vcpu.rflags, vcpu.cr2) == (0x1234, 0x5678, 0x246, 0x7777)
    assert either.set(ip, vcpu.rip + 1) == "OK"
    assert either.register(ip) == vcpu.rip
    for name in ("cr0", "cr3", "cr4"):
        assert either.register(name) == vcpu.get(name)
    for name in ("cr3", "cs", "efer", "fctrl"):
        assert either.set(name, either.register(name)) == "OK"  # as it is
    for name in ("cr0", "cr3", "cs", "efer", "fop"):
        assert either.set(name, either.register(name) ^ 8) == "E01"
    for name, value in (("xmm3", 0x1122334455667788), ("st2", 0x3FFF << 64 | 1 << 63), ("mxcsr", 0x1FA0)):
        assert either.set(name, value) == "OK"
        assert either.register(name) == value
    assert either.set("mxcsr", 1 << 31) == "E22"
    whole = either.text("g")
    assert either.text(f"G{whole}") == "OK"
    assert either.text("g") == whole
    assert either.text(f"G{whole[2:]}") == "E22"
    assert either.text("Pff=00") == either.text("pff") == either.text("P0=") == either.text("P0=0") == "E22"
    if wide:
        assert either.set("k_gs_base", 0x4444) == either.set("fs_base", 0x3333) == "OK"
        assert (either.register("k_gs_base"), vcpu.get("fs_base")) == (0x4444, 0x3333)


def test_what_is_written_is_an_event_and_what_is_read_none(asked: Asked) -> None:
    log = asked.session.machine.log
    before = log.sha256
    asked.text("g")
    asked.text(f"m{asked.register('rip'):x},10")
    asked.set("rax", asked.register("rax"))
    assert log.sha256 == before
    asked.set("rax", 77)
    assert asked.text(f"M{asked.register('rsi'):x},2:abcd") == "OK"
    events = [event for event in log.events if event.kind == "gdb"]
    assert [dict(event.fields)["what"] for event in events] == ["rax", "memory"]


def test_memory_is_read_and_written_by_the_vcpus_tables(either: Asked) -> None:
    session = either.session
    begin, _ = session.guest.text_range
    vcpu = session.machine.vcpus[0]
    code = session.read(begin, 64)
    assert either.text(f"m{begin:x},40") == code.hex()
    assert either.one(f"x{begin:x},40") == b"b" + code
    data = vcpu.rip & ~0xFFF | 0x0  # any page that is there
    assert either.text(f"m{data:x},{1 << 63:x}")[:2] == f"{vcpu.u8(data):02x}"
    info = vcpu.get("rsi" if vcpu.machine.kind.bits == 64 else "esi")
    for packet, value in ((f"M{info:x},3:0a0b0c", b"\x0a\x0b\x0c"), (f"X{info:x},3:".encode() + b"#$*", b"#$*")):
        assert either.text(packet) == "OK"
        assert vcpu.read_virtual(info, 3) == value
    assert either.text(f"X{info:x},0:") == "OK"
    for packet in ("m0,0", f"M{info:x},3:0a0b", "m,4", "m10", "m1_0,4", "m-1,4", "m11111111111111111,4", "Mzz"):
        assert either.text(packet) == "E22"


@pytest.mark.parametrize("address", [0x4000_0000_0000, 0x8000_0000_0000, 0xFFFF_FFFF_FFFF_FFFF, 0x6000_0000_0000_0000])
@pytest.mark.parametrize("length", [1, 8, 1 << 63, (1 << 64) - 1])
def test_memory_that_is_not_there_is_e14(asked: Asked, address: int, length: int) -> None:
    assert asked.text(f"m{address:x},{length:x}") == "E14"
    assert asked.text(f"x{address:x},{length:x}") == "E14"
    assert asked.text(f"M{address:x},1:00") == "E14"


def test_a_write_is_made_wholly_or_not_at_all(asked: Asked) -> None:
    """Behind the last page that the guest has there is nothing."""
    vcpu = asked.session.machine.vcpus[0]
    last = asked.session.guest.text_range[0] & ~0xFFF
    while asked.text(f"m{last + 0x1000:x},1") != "E14":
        last += 0x1000
    before = vcpu.virtual.read(last + 0xFFE, 2, system=True)
    assert asked.text(f"M{last + 0xFFE:x},4:01020304") == "E14"
    assert vcpu.virtual.read(last + 0xFFE, 2, system=True) == before
    assert asked.text(f"m{last + 0xFFE:x},40") == before.hex()


def test_text_is_written_by_its_one_writer(asked: Asked) -> None:
    at = asked.session.guest.symbols["entry"] + 64
    assert asked.text(f"M{at:x},1:90") == "OK"
    assert asked.session.read(at, 1) == b"\x90"
    assert [event.kind for event in asked.session.machine.log.events][-2:] == ["poke", "gdb"]


def test_places_to_stop_are_counted_and_checked(asked: Asked) -> None:
    for number in range(4):
        assert asked.text(f"Z2,{0x1000 * number:x},8") == "OK"
    assert asked.text("Z4,ff0000,8") == "E28"
    assert asked.text("Z2,0,8") == "OK"  # once more
    assert asked.text("z2,0,8") == "OK"
    assert asked.text("Z3,0,1001") == asked.text("Z3,0,0") == asked.text("Z5,0,1") == asked.text("Z0,0") == "E22"
    for number in range(MOST):
        assert asked.text(f"Z{number % 2},{number:x},1") == "OK"
    assert asked.text("Z0,ffff,1") == "E28"
    assert asked.text("z0,ffff,1") == "OK"


def test_threads_are_vcpus(asked: Asked) -> None:
    assert asked.text("qfThreadInfo") == "m1,2"
    assert asked.text("qsThreadInfo") == "l"
    assert asked.text("qC") == "QC1"
    assert asked.text("T2") == asked.text("Hg2") == asked.text("Hg0") == asked.text("Hc-1") == "OK"
    assert asked.text("T3") == asked.text("T0") == asked.text("Hg3") == asked.text("Hgx") == "E22"
    assert asked.text("Hx1") == ""
    assert bytes.fromhex(asked.text("qThreadExtraInfo,2")) == b"not started"
    asked.session.machine.vcpus[1].set("rbx", 5)
    assert asked.text("Hg2") == "OK"
    assert asked.register("rbx") == 5


@pytest.mark.parametrize(
    ("packet", "stepping", "going"),
    [
        ("vCont;c", (), (1, 2)),
        ("vCont;s:2;c", (2,), (1,)),
        ("vCont;s:2", (2,), ()),
        ("vCont;c:1;s:1;s:2", (2,), (1,)),
        ("vCont;S05:1;C0b:-1", (1,), (2,)),
        ("c", (), (1, 2)),
        ("s", (1,), (2,)),
        ("C05", (), (1, 2)),
        ("S05", (1,), (2,)),
    ],
)
def test_who_goes_on_and_who_steps(
    asked: Asked, packet: str, stepping: tuple[int, ...], going: tuple[int, ...]
) -> None:
    assert asked.dialogue.answer(packet.encode()) == Resume(frozenset(stepping), frozenset(going))


@pytest.mark.parametrize(
    "packet", ["vCont;", "vCont;t", "vCont;c:3", "vCont;r1,2:1", "vCont;s:1;;c", "c1000", "s12", "vCont;cc"]
)
def test_what_is_no_way_to_go_on_is_refused(asked: Asked, packet: str) -> None:
    assert asked.text(packet) == "E22"


def test_it_leaves(asked: Asked) -> None:
    assert asked.dialogue.answer(b"D") == Leave(killing=False)
    assert asked.dialogue.answer(b"k") == Leave(killing=True, replies=())
    assert asked.dialogue.answer(b"vKill;1") == Leave(killing=True)


def test_why_it_stopped_is_told_as_the_other_end_knows_it(asked: Asked) -> None:
    assert asked.text("?") == "T05thread:1;"
    sw, watch = Hit(1, StopPlace(0, 0x10, 1)), Hit(1, StopPlace(4, 0xABC, 8))
    assert asked.dialogue.stopped(5, 2, sw) == b"T05thread:2;"
    assert asked.dialogue.stopped(5, 2, watch) == b"T05awatch:abc;thread:2;"
    asked.text("qSupported:swbreak+;hwbreak-")
    assert asked.dialogue.stopped(5, 2, sw) == b"T05swbreak:;thread:2;" == asked.one("?")
    assert asked.text("qC") == "QC2"


def monitor(asked: Asked, line: str) -> str:
    *said, last = asked.dialogue.answer(b"qRcmd," + line.encode().hex().encode())  # type: ignore[misc]
    assert last == b"OK"
    return b"".join(bytes.fromhex(piece[1:].decode()) for piece in said).decode()


@pytest.mark.parametrize("backend", ["native", "xen"])
def test_a_person_asks_about_the_guest(make_session: MakeSession, backend: str) -> None:
    asked = Asked(make_session(backend, vcpus=2))
    asked.session.run(max_ns=10_000_000)
    listed = monitor(asked, "")
    for verb in ("help", "where", "vcpus", "ops", "hypercalls", "time", "symbol"):
        assert f"{verb} " in listed
        assert monitor(asked, verb)
    assert "vcpu 0 at " in monitor(asked, "where")
    assert monitor(asked, "vcpus").count("thread") == 2
    (line,) = monitor(asked, "ops write_cr3").splitlines()
    assert f"{backend}." in line
    assert len(monitor(asked, "ops").splitlines()) > 50
    assert f"virtual time {asked.session.machine.clock.ns} ns" in monitor(asked, "time")
    place = asked.session.guest.symbols["entry"]
    assert f"{place:#x}  entry\n" in monitor(asked, f"symbol entry {place:#x}")
    if backend == "xen":
        assert re.search(r"mmu_update +\d+", monitor(asked, "hypercalls"))


@pytest.mark.parametrize("line", ["wher", "ops nothing", "symbol no_such", "symbol", "ops zz.*", "\xff\x1b[2J"])
def test_what_a_person_gets_wrong_is_told(asked: Asked, line: str) -> None:
    told = monitor(asked, line)
    assert told.endswith("\n")
    assert told.isprintable() or told.rstrip("\n").isprintable()


def test_mutated_packets_have_an_answer_each(asked: Asked) -> None:
    """Of any bytes comes an answer of the protocol, of a length that the other end takes, and never an error."""
    for packet in mutated(MUTATED, seed=20):
        answer = asked.dialogue.answer(packet)
        if isinstance(answer, Resume):
            assert answer.stepping | answer.going <= {1, 2}
            assert not answer.stepping & answer.going
        elif not isinstance(answer, Leave):
            assert all(len(reply) <= PACKET_SIZE for reply in answer)
    assert asked.text("qC").startswith("QC")
