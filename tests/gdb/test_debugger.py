"""A debugger at a session's door: it comes, looks, steps, leaves or vanishes; the run ends as if it had not come."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from typing import TYPE_CHECKING

import pytest

from pvops_core.errors import UsageError
from pvops_core.gdb import connection
from pvops_core.gdb.debugger import Debugger
from pvops_core.gdb.orders import LOOPBACK, DebugOrders
from pvops_core.gdb.packets import Sign, framed
from tests.gdb.client import Running
from tests.gdb.mutations import PACKETS, mutated

if TYPE_CHECKING:
    from pvops_core.session import Session
    from tests.gdb.conftest import MakeSession

RIP = 16
MANY = 8_000


def result(session: Session) -> tuple[str, int, str]:
    return session.machine.log.sha256, session.machine.clock.ns, session.text_sha256()


@pytest.fixture
def undisturbed(make_session: MakeSession) -> tuple[str, int, str]:
    session = make_session(vcpus=2)
    assert session.run().reason == "poweroff"
    return result(session)


def place(session: Session, symbol: str) -> int:
    return session.guest.symbols[symbol]


def test_a_whole_visit_leaves_the_run_as_it_is(make_session: MakeSession, undisturbed: tuple[str, int, str]) -> None:
    """Breakpoints of both kinds, a thousand steps of either vCPU, a watched slot, then it detaches."""
    session = make_session(vcpus=2)
    table = session.known_table
    slot = table.address(table.slot("write_cr3"))
    secondary = place(session, "secondary_entry")
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("qSupported:swbreak+;hwbreak+").startswith("PacketSize")
        assert gdb.ask("?") == "T05thread:1;"
        assert gdb.ask(f"Z2,{slot:x},8") == gdb.ask(f"Z1,{secondary:x},1") == "OK"
        seen = []
        while (stop := gdb.ask("vCont;c")) != "T05hwbreak:;thread:2;":
            assert stop == f"T05watch:{slot:x};thread:1;"
            seen.append(gdb.register(RIP))
            assert len(seen) < 20
        assert gdb.register(RIP) == secondary
        assert gdb.ask(f"z2,{slot:x},8") == gdb.ask(f"z1,{secondary:x},1") == "OK"
        for number in range(1000):
            order = ("vCont;s:2;c", "vCont;s:1;c", "s", "vCont;s:2;c:1")[number % 4]
            assert gdb.ask(order)[:3] == "T05"
        where = gdb.register(RIP)
        assert gdb.ask(f"Z0,{where:x},1") == "OK"
        assert gdb.ask("vCont;c").startswith("T05swbreak:;")
        assert gdb.register(RIP) == where
        assert gdb.ask("D") == "OK"
        assert gdb.over()
        assert running.end() == "poweroff"
    assert result(session) == undisturbed


def test_stepping_over_a_breakpoint_as_gdb_does(make_session: MakeSession, undisturbed: tuple[str, int, str]) -> None:
    """It is taken away, one vCPU alone makes a step, it is put back, and all go on."""
    session = make_session(vcpus=2)
    at = place(session, "handle_page_fault") if "handle_page_fault" in session.guest.symbols else None
    at = at or session.known_table.target(session.known_table.slot("set_pte"))
    met = 0
    with Running(session) as running:
        gdb = running.client()
        for _ in range(30):
            assert gdb.ask(f"Z0,{at:x},1") == "OK"
            stop = gdb.ask("vCont;c")
            assert stop[:3] == "T05", stop
            thread = stop.partition("thread:")[2].rstrip(";")
            assert gdb.ask(f"Hg{thread}") == "OK"
            assert gdb.register(RIP) == at
            met += 1
            assert gdb.ask(f"z0,{at:x},1") == "OK"
            assert gdb.ask(f"vCont;s:{thread}")[:3] == "T05"
            assert gdb.register(RIP) != at
        gdb.close()
        assert running.end() == "poweroff"
    assert met == 30
    assert result(session) == undisturbed
    assert running.said[-1] == "the debugger has gone; the guest goes on"


def test_one_that_comes_late_interrupts_and_comes_again(
    make_session: MakeSession, undisturbed: tuple[str, int, str]
) -> None:
    session = make_session(vcpus=2)
    with Running(session) as running:
        first = running.client()
        assert first.ask("?") == "T05thread:1;"
        first.say("vCont;c")
        first.socket.sendall(b"\x03")
        assert first.hear().startswith("T02")
        assert first.ask("D") == "OK"
        second = running.client()  # unless the guest has come to its end before
        try:
            assert second.ask("?")[:3] == "T05"
            assert second.ask("D") == "OK"
        except (EOFError, OSError):
            assert running.end() == "poweroff"
        assert running.end() == "poweroff"
    assert result(session) == undisturbed
    assert running.stood[:4] == [True, True, False, True]


def test_a_second_one_is_refused_and_disturbs_nobody(make_session: MakeSession) -> None:
    session = make_session()
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("qC") == "QC1"
        other = running.client()
        assert other.over()
        assert gdb.ask("qC") == "QC1"
        gdb.say("c")
        running.client().close()
        assert gdb.hear() == "W00"
        assert gdb.over()
        assert running.end() == "poweroff"


def test_it_waits_for_one_that_says_something(make_session: MakeSession) -> None:
    session = make_session()
    with Running(session) as running:
        running.client().close()
        running.client().close()
        time.sleep(0.1)
        assert session.machine.clock.ns == 0
        gdb = running.client()
        assert gdb.ask("qC") == "QC1"
        gdb.close()
        assert running.end() == "poweroff"


def test_killing_ends_the_run(make_session: MakeSession) -> None:
    session = make_session()
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("vKill;1") == "OK"
        assert gdb.over()
        assert running.end() == "ended"
    assert session.machine.clock.ns == 0


def test_the_guests_end_is_told(make_session: MakeSession) -> None:
    with Running(make_session(bits=32)) as running:
        gdb = running.client()
        assert gdb.ask("c") == "W00"
        assert gdb.over()
        assert running.end() == "poweroff"


def test_a_guest_that_crashed_can_be_looked_at(make_session: MakeSession) -> None:
    session = make_session()
    with Running(session) as running:
        gdb = running.client()
        gdb.ask(f"Z1,{place(session, 'entry') + 1:x},1")
        assert gdb.ask("c")[:3] == "T05"
        gates = session.machine.gates.address(0) + 1
        assert gdb.ask(f"P{RIP:x}={gates.to_bytes(8, 'little').hex()}") == "OK"
        assert gdb.ask("c") == "T06thread:1;"
        assert gdb.register(RIP) == gates
        assert gdb.ask("c") == "X06"
        assert running.end() == "crash"


def test_an_error_of_the_run_hangs_up(make_session: MakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make_session()

    def fail(*_: object, **__: object) -> None:
        raise LookupError("here")

    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("qC") == "QC1"
        monkeypatch.setattr(type(session), "run", fail)
        assert gdb.ask("c") == "X06"
        with pytest.raises(LookupError, match="here"):
            running.end()


def test_one_vcpu_alone_runs_and_its_sleep_is_no_end(make_session: MakeSession) -> None:
    """With the others kept, one that has not been started cannot be woken: it stands, and nobody waits for ever."""
    session = make_session(vcpus=2)
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("vCont;s:2") == gdb.ask("vCont;c:2") == "T05thread:2;"
        assert gdb.ask("vCont;c") == "W00"
        assert running.end() == "poweroff"


def test_acknowledgements_are_given_until_they_are_not_wanted(make_session: MakeSession) -> None:
    with Running(make_session()) as running:
        gdb = running.client()
        gdb.socket.sendall(b"$qC#00")
        assert gdb.token() is Sign.NAK
        gdb.say("qC")
        assert [gdb.token(), gdb.token()] == [Sign.ACK, b"QC1"]
        gdb.socket.sendall(b"-")
        assert gdb.token() == b"QC1"
        gdb.say("QStartNoAckMode")
        assert [gdb.token(), gdb.token()] == [Sign.ACK, b"OK"]
        gdb.socket.sendall(b"$qC#00")
        gdb.say("qC")
        assert gdb.token() == b"QC1"
        gdb.say("k")
        assert running.end() == "ended"


def test_hostile_ones_get_nowhere(make_session: MakeSession, undisturbed: tuple[str, int, str]) -> None:
    """Noise, packets out of turn, packets without end, and a hang-up in the midst of it: the guest goes on."""
    chance = random.Random(7)
    session = make_session(vcpus=2)
    harmless = [packet for packet in PACKETS if packet[:1] not in b"PMXkDvcsC" and packet[:1] != b"Z"]
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("qC") == "QC1"
        noise = b"".join(
            chance.choice([framed(chance.choice(harmless)), chance.randbytes(30).replace(b"$", b"%"), b"$m0,", b"-"])
            for _ in range(300)
        )
        gdb.socket.sendall(noise + b"$" + b"x" * 200_000)
        gdb.socket.sendall(framed(b"c") + framed(b"g") * 50 + b"$m1,")
        gdb.close()
        assert running.end() == "poweroff"
    assert result(session) == undisturbed


def test_one_that_asks_and_does_not_listen_is_given_up(
    make_session: MakeSession, undisturbed: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.3)
    session = make_session(vcpus=2)
    with Running(session) as running:
        gdb = running.client()
        gdb.socket.settimeout(0.5)
        with contextlib.suppress(OSError):
            while True:
                gdb.socket.sendall(framed(b"qXfer:features:read:target.xml:0,1000") * 100)
        assert running.end() == "poweroff"
    assert running.said[-1] == "the debugger has gone; the guest goes on"
    assert result(session) == undisturbed


def test_ten_thousand_mutated_packets(make_session: MakeSession, undisturbed: tuple[str, int, str]) -> None:
    """Of those that neither write nor have the guest go on: each is answered, and the run is as it was."""
    asking = [each for each in mutated(15_000, seed=3) if each[:1] not in {*map(bytes, zip(b"cCsSDkPGMX")), b"v", b"H"}]
    session = make_session(vcpus=2)
    with Running(session) as running:
        gdb = running.client()
        assert gdb.ask("QStartNoAckMode") == "OK"
        for at in range(0, len(asking), 100):
            gdb.socket.sendall(b"".join(map(framed, asking[at : at + 100])))
            for packet in asking[at : at + 100]:
                if packet.startswith(b"qRcmd,"):
                    while (reply := gdb.hear())[:1] == "O" and reply != "OK":
                        pass
                else:
                    gdb.hear()
        assert gdb.ask("qC") == "QC1"
        assert gdb.ask("D") == "OK"
        assert running.end() == "poweroff"
    assert len(asking) > MANY
    assert result(session) == undisturbed


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("1234", LOOPBACK, 1234),
        (":0", LOOPBACK, 0),
        ("0.0.0.0:99", "0.0.0.0", 99),
        ("[::1]:65535", "::1", 65535),
        ("localhost:1", "localhost", 1),
    ],
)
def test_orders(text: str, host: str, port: int) -> None:
    assert DebugOrders.parse(text) == DebugOrders(host, port)


@pytest.mark.parametrize("text", ["", "x", "1:2:3", "65536", "-1", "::1:1234", "a b:1", "1234x", "[::1]", "123456"])
def test_no_orders(text: str) -> None:
    with pytest.raises(UsageError, match="--gdb takes"):
        DebugOrders.parse(text)


def test_a_port_that_is_taken_or_a_host_that_is_not_here(make_session: MakeSession) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        for orders in (
            DebugOrders(LOOPBACK, taken.getsockname()[1]),
            DebugOrders("192.0.2.1", 0),
            DebugOrders("..", 0),
        ):
            with pytest.raises(UsageError, match="nobody can listen at"):
                Debugger(make_session(), orders, print, print)
