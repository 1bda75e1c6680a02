"""Xenstore: what each request answers, who may do what, watches, transactions, quotas, and rings that lie."""

from __future__ import annotations

import contextlib
import copy
import itertools
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pvops_xen.xenstore import saved
from pvops_xen.xenstore.daemon import Daemon
from pvops_xen.xenstore.service import REPLIES, REQUESTS, StoreService
from pvops_xen.xenstore.store import QUOTA_NODES
from pvops_xen.xenstore.toolstack import DomainFacts, request_shutdown, write_domain
from pvops_xen.xenstore.wire import PAYLOAD_MAX, BadClientError, Message, Type, split

from pvops_core.machine.memory import PhysicalMemory
from pvops_core.machine.run.stateful import where_not_plain

if TYPE_CHECKING:
    from pvops_xen.hypervisor.ring import ByteRing

DOMID = 3
HOME = f"/local/domain/{DOMID}"


class Client:
    """A domain that asks, and reads what it is told."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.connection = self.daemon.introduce(DOMID)
        write_domain(self.daemon, DomainFacts(DOMID, "guest", 65536, 2, (1, 100), (2, 101)))
        self.events: list[tuple[str, str]] = []
        self.number = 0

    def ask(self, kind: int, *words: str, transaction: int = 0, raw: bytes | None = None) -> bytes:
        """The reply's payload, or the name of an error in lower case."""
        payload = b"".join(word.encode() + b"\0" for word in words) if raw is None else raw
        self.number += 1
        self.daemon.receive(self.connection, Message(kind, self.number, transaction, payload).pack())
        reply = None
        for message in self.messages():
            if message.type == Type.WATCH_EVENT:
                path, token = message.payload.decode().split("\0")[:2]
                self.events.append((path, token))
                continue
            assert reply is None
            assert (message.request, message.transaction) == (self.number, transaction)
            assert message.type in {kind, Type.ERROR}
            reply = message.payload.rstrip(b"\0").lower() if message.type == Type.ERROR else message.payload
        assert reply is not None
        return reply

    def messages(self) -> Iterator[Message]:
        while (message := split(self.connection.unread)) is not None:
            yield message

    def hear(self) -> list[tuple[str, str]]:
        """Events since the last time."""
        for message in self.messages():
            path, token = message.payload.decode().split("\0")[:2]
            self.events.append((path, token))
        heard, self.events = self.events, []
        return heard

    def write(self, path: str, value: bytes, transaction: int = 0) -> bytes:
        return self.ask(Type.WRITE, transaction=transaction, raw=path.encode() + b"\0" + value)


@pytest.fixture
def client() -> Client:
    return Client()


def test_what_a_toolstack_says_of_a_domain(client: Client) -> None:
    assert client.ask(Type.READ, "name") == b"guest"
    assert client.ask(Type.READ, f"{HOME}/memory/target") == b"65536"
    vm = client.ask(Type.READ, "vm").decode()
    assert client.ask(Type.READ, f"{vm}/name") == b"guest"
    assert client.ask(Type.DIRECTORY, "cpu") == b"0\x001\x00"
    assert client.ask(Type.READ, "control/shutdown") == b""
    assert client.ask(Type.GET_DOMAIN_PATH, "7") == b"/local/domain/7\0"
    assert client.ask(Type.IS_DOMAIN_INTRODUCED, str(DOMID)) == b"T\0"
    assert client.ask(Type.IS_DOMAIN_INTRODUCED, "44") == b"F\0"


def test_values_are_bytes_and_nodes_come_and_go(client: Client) -> None:
    assert client.write("data/a/b", b"\0\xff") == b"OK\0"
    assert client.ask(Type.READ, "data/a/b") == b"\0\xff"
    assert client.ask(Type.READ, "data/a") == b""
    assert client.ask(Type.MKDIR, "data/a/c") == client.ask(Type.MKDIR, "data/a/c") == b"OK\0"
    assert client.ask(Type.DIRECTORY, "data/a") == b"b\0c\0"
    assert client.ask(Type.RM, "data/a") == b"OK\0"
    assert client.ask(Type.READ, "data/a/b") == b"enoent"
    assert client.ask(Type.RM, "data/a") == b"OK\0"
    assert client.ask(Type.RM, "data/a/b") == b"enoent"
    assert client.ask(Type.DIRECTORY, "data") == b""


def test_rights(client: Client) -> None:
    assert client.write("name", b"mine") == b"eacces"
    assert client.ask(Type.MKDIR, f"{HOME}/new") == b"eacces"
    assert client.ask(Type.READ, "/local/domain/0/x") == b"eacces"
    assert client.ask(Type.READ, "nothing") == b"enoent"
    assert client.ask(Type.RM, "/") == b"eacces"
    assert client.ask(Type.GET_PERMS, "data") == b"n3\0"
    assert client.ask(Type.GET_PERMS, HOME) == b"n0\0r3\0"
    assert client.ask(Type.SET_PERMS, "data", "b3", "r7") == b"OK\0"
    assert client.ask(Type.GET_PERMS, "data") == b"b3\0r7\0"
    assert client.ask(Type.SET_PERMS, "data", "b7") == b"eperm"
    assert client.ask(Type.SET_PERMS, "name", "b3") == b"eacces"
    assert client.ask(Type.SET_PERMS, "data", *["r1"] * 6) == b"enospc"
    for word in ("x3", "b", "b-1", "b3x"):
        assert client.ask(Type.SET_PERMS, "data", word) == b"einval"
    client.write("data/kid", b"")
    assert client.ask(Type.GET_PERMS, "data/kid") == b"b3\0r7\0"


@pytest.mark.parametrize("path", ["", "a//b", "a/", "a b", "/a\x7f", "/" + "x" * 3072, "a" * 3080])
def test_paths_that_are_none(client: Client, path: str) -> None:
    for kind in (Type.READ, Type.DIRECTORY, Type.MKDIR, Type.RM, Type.GET_PERMS):
        assert client.ask(kind, path) == b"einval"
    assert client.write(path, b"") == b"einval"
    assert client.ask(Type.WATCH, path, "t") == b"einval"


def test_requests_that_make_no_sense(client: Client) -> None:
    assert client.ask(Type.READ, raw=b"name") == b"einval"
    assert client.ask(Type.READ, raw=b"") == b"einval"
    assert client.ask(Type.READ, "name", "vm") == b"einval"
    assert client.ask(Type.WRITE, raw=b"data") == b"einval"
    assert client.ask(Type.WATCH, "data") == b"einval"
    assert client.ask(Type.SET_PERMS, "data") == b"einval"
    assert client.ask(Type.DIRECTORY_PART, "data") == b"einval"
    assert client.ask(Type.READ, "name", transaction=5) == b"enoent"
    assert client.ask(Type.TRANSACTION_END, "T") == b"enoent"
    for kind in (Type.WATCH_EVENT, Type.ERROR, 20, 99):
        assert client.ask(kind, "x") == b"enosys"
    for kind in (Type.CONTROL, Type.INTRODUCE, Type.RELEASE, Type.RESUME, Type.SET_TARGET):
        assert client.ask(kind, "1") == b"eacces"
    with pytest.raises(BadClientError, match="4097 bytes"):
        client.daemon.receive(client.connection, struct.pack("<4I", Type.READ, 0, 0, PAYLOAD_MAX + 1))


def test_watches(client: Client) -> None:
    assert client.ask(Type.WATCH, "data", "one") == b"OK\0"
    assert client.ask(Type.WATCH, f"{HOME}/data/x", "two") == b"OK\0"
    assert client.ask(Type.WATCH, "data", "one") == b"eexist"
    assert client.hear() == [("data", "one"), (f"{HOME}/data/x", "two")]
    client.write("data/x/y", b"1")
    assert client.hear() == [("data/x/y", "one"), (f"{HOME}/data/x/y", "two")]
    client.ask(Type.RM, "data")
    assert client.hear() == [("data", "one"), (f"{HOME}/data/x", "two"), ("data", "one")]
    assert client.ask(Type.UNWATCH, "data", "two") == b"enoent"
    assert client.ask(Type.UNWATCH, "data", "one") == b"OK\0"
    assert client.ask(Type.RESET_WATCHES, "") == b"OK\0"
    request_shutdown(client.daemon, DOMID, "poweroff")
    assert client.hear() == []
    for number in range(128):
        assert client.ask(Type.WATCH, "@releaseDomain", str(number)) == b"OK\0"
    assert client.ask(Type.WATCH, "data", "more") == b"e2big"


def test_the_toolstack_asks_for_a_shutdown(client: Client) -> None:
    client.ask(Type.WATCH, "control/shutdown", "sd")
    client.hear()
    request_shutdown(client.daemon, DOMID, "reboot")
    assert client.hear() == [("control/shutdown", "sd")]
    number = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    assert client.ask(Type.READ, "control/shutdown", transaction=number) == b"reboot"
    client.write("control/shutdown", b"", number)
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    assert client.ask(Type.READ, "control/shutdown") == b""


def test_nobody_hears_of_what_it_may_not_read(client: Client) -> None:
    client.ask(Type.WATCH, "/", "all")
    client.hear()
    client.daemon.as_toolstack().write("/local/domain/0/secret", b"x")
    client.daemon.as_toolstack().write(f"{HOME}/name", b"x")
    assert client.hear() == [(f"{HOME}/name", "all")]


def test_a_transaction_is_seen_by_others_when_it_is_done(client: Client) -> None:
    client.ask(Type.WATCH, "data", "w")
    client.hear()
    number = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    client.write("data/t", b"1", number)
    client.ask(Type.MKDIR, "data/u", transaction=number)
    client.ask(Type.RM, "data/u", transaction=number)
    assert client.ask(Type.READ, "data/t", transaction=number) == b"1"
    assert client.ask(Type.READ, "data/t") == b"enoent"
    assert client.hear() == []
    assert client.ask(Type.TRANSACTION_END, "maybe", transaction=number) == b"einval"
    assert client.ask(Type.TRANSACTION_START, "", transaction=number) == b"ebusy"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    assert client.ask(Type.READ, "data/t") == b"1"
    assert client.hear()[0] == ("data/t", "w")
    assert client.ask(Type.READ, "data/t", transaction=number) == b"enoent"


def test_of_two_that_touch_one_node_the_second_tries_again(client: Client) -> None:
    first, second, third = (int(client.ask(Type.TRANSACTION_START, "")[:-1]) for _ in range(3))
    client.write("data/x", b"1", first)
    client.write("data/y", b"2", second)  # both change the list of data's children
    assert client.ask(Type.READ, "name", transaction=third) == b"guest"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=first) == b"OK\0"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=second) == b"eagain"
    assert client.ask(Type.TRANSACTION_END, "T", transaction=third) == b"OK\0"
    assert client.ask(Type.READ, "data/y") == b"enoent"
    aborted = int(client.ask(Type.TRANSACTION_START, "")[:-1])
    client.write("data/z", b"", aborted)
    assert client.ask(Type.TRANSACTION_END, "F", transaction=aborted) == b"OK\0"
    assert client.ask(Type.READ, "data/z") == b"enoent"
    for _ in range(10):
        client.ask(Type.TRANSACTION_START, "")
    assert client.ask(Type.TRANSACTION_START, "") == b"enospc"


def test_a_long_directory_comes_in_parts(client: Client) -> None:
    names = [f"{index:0120d}" for index in range(60)]
    tree = client.daemon.as_toolstack()
    for name in names:
        tree.mkdir(f"{HOME}/device/{name}")
    assert client.ask(Type.DIRECTORY, "device") == b"e2big"
    found = b""
    generations = set()
    while not found.endswith(b"\0\0"):
        generation, _, part = client.ask(Type.DIRECTORY_PART, "device", str(len(found))).partition(b"\0")
        generations.add(generation)
        found += part
    assert found.decode().split("\0")[:-2] == ["suspend", *names]
    assert len(generations) == 1
    assert client.ask(Type.DIRECTORY_PART, "device", "99999").endswith(b"\0\0")


def test_quotas(client: Client) -> None:
    assert client.write("data/big", b"x" * 2020) == b"enospc"
    assert client.ask(Type.READ, "data/big") == b"enoent"
    owned = client.daemon.tree.owned(DOMID)
    parents = [f"data/{index}" for index in range(11)]
    made = 0
    for index in range(QUOTA_NODES):
        if client.ask(Type.MKDIR, f"{parents[index % 11]}/{index}") != b"OK\0":
            break
        made += 1
    assert client.daemon.tree.owned(DOMID) == QUOTA_NODES == owned + made + 11
    client.ask(Type.RM, "data/0")
    assert client.ask(Type.MKDIR, "data/again") == b"OK\0"


acts = st.sampled_from(["write", "mkdir", "rm", "start", "commit", "abort"])
paths = st.sampled_from(["data", "data/a", "data/a/b", "data/c", "attr/x", "name"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(acts, paths, st.integers(0, 2))))
def test_transactions_are_all_or_nothing(steps: list[tuple[str, str, int]]) -> None:
    client = Client()
    open_ones: list[int] = []
    for what, path, which in steps:
        number = open_ones[which - 1] if 0 < which <= len(open_ones) else 0
        before = dict(client.daemon.tree.nodes)
        if what == "start":
            if len(open_ones) < 2:
                open_ones.append(int(client.ask(Type.TRANSACTION_START, "")[:-1]))
        elif what in {"commit", "abort"} and number:
            reply = client.ask(Type.TRANSACTION_END, "T" if what == "commit" else "F", transaction=number)
            open_ones.remove(number)
            if reply != b"OK\0" or what == "abort":
                assert client.daemon.tree.nodes == before
        elif what in {"write", "mkdir", "rm"}:
            kind = {"write": Type.WRITE, "mkdir": Type.MKDIR, "rm": Type.RM}[what]
            client.ask(kind, transaction=number, raw=path.encode() + b"\0")
            if number:
                assert client.daemon.tree.nodes == before
        _check(client.daemon)


def _check(daemon: Daemon) -> None:
    nodes = daemon.tree.nodes
    children = {f"{path.rstrip('/')}/{name}" for path, node in nodes.items() for name in node.children}
    assert children == nodes.keys() - {"/"}
    counts: dict[int, int] = {}
    for node in nodes.values():
        counts[node.owner] = counts.get(node.owner, 0) + 1
    assert {domid: count for domid, count in daemon.tree.counts.items() if count} == counts


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200), st.lists(st.integers(0, 200)))
def test_bytes_of_any_kind_end_in_an_answer_or_a_reason(data: bytes, cuts: list[int]) -> None:
    client = Client()
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    with contextlib.suppress(BadClientError):
        for start, end in itertools.pairwise([*places, len(data)]):
            client.daemon.receive(client.connection, data[start:end])


# --- the page --------------------------------------------------------------------------------------------------------


@attrs.define
class Guest:
    """The domain's end of the page at 4096."""

    memory: PhysicalMemory
    service: StoreService

    def index(self, offset: int, value: int | None = None) -> int:
        if value is not None:
            self.memory.set_u32(4096 + offset, value)
        return self.memory.u32(4096 + offset)

    def put(self, ring: ByteRing, data: bytes) -> None:
        producer = self.index(ring.producer)
        for at, byte in enumerate(data):
            self.memory.set_u8(4096 + ring.data + (producer + at) % ring.size, byte)
        self.index(ring.producer, (producer + len(data)) % (1 << 32))

    def take(self, ring: ByteRing) -> bytes:
        return ring.take(self.memory, 4096)


@pytest.fixture
def guest() -> Guest:
    memory = PhysicalMemory(1 << 16)
    service = StoreService(DOMID)
    service.open(memory, 4096, 1)
    write_domain(service.daemon, DomainFacts(DOMID, "guest", 1, 1, (1, 1), (2, 2)))
    return Guest(memory, service)


@pytest.mark.parametrize("start", [0, 1000, (1 << 32) - 10])
def test_replies_longer_than_the_ring_come_as_room_comes(guest: Guest, start: int) -> None:
    for ring in (REQUESTS, REPLIES):
        guest.index(ring.consumer, start)
        guest.index(ring.producer, start)
    value = bytes(range(256)) * 7
    message = Message(Type.WRITE, 1, 0, b"data\0" + value).pack()
    for at in range(0, len(message), 1000):
        guest.put(REQUESTS, message[at : at + 1000])
        assert guest.service.exchange(guest.memory)
    guest.put(REQUESTS, Message(Type.READ, 2, 0, b"data\0").pack())
    received = b""
    while guest.service.exchange(guest.memory):
        received += guest.take(REPLIES)
    buffer = bytearray(received)
    assert split(buffer) == Message(Type.WRITE, 1, 0, b"OK\0")
    assert split(buffer) == Message(Type.READ, 2, 0, value)
    assert not buffer


@pytest.mark.parametrize(
    ("ring", "consumer", "producer"), [(REQUESTS, 0, 1025), (REQUESTS, 1, 0), (REPLIES, 5, 4), (REPLIES, 0, 1 << 31)]
)
def test_indices_that_make_no_sense_are_named_and_end_the_conversation(
    guest: Guest, ring: ByteRing, consumer: int, producer: int
) -> None:
    said: list[str] = []
    guest.service.log = said.append
    guest.put(REQUESTS, Message(Type.READ, 2, 0, b"name\0").pack())
    guest.index(ring.consumer, consumer)
    guest.index(ring.producer, producer)
    assert guest.service.exchange(guest.memory)
    assert "more than the 1024 bytes of a ring" in said[0]
    assert guest.index(2072) == 2
    assert not guest.service.exchange(guest.memory)


def test_a_message_too_long_is_named_too(guest: Guest) -> None:
    guest.put(REQUESTS, struct.pack("<4I", Type.READ, 0, 0, 5000))
    assert guest.service.exchange(guest.memory)
    assert guest.index(2072) == 3
    assert "5000 bytes" in guest.service.daemon.clients[DOMID].ignored


def test_a_guest_that_never_reads_is_not_answered_for_ever(guest: Guest) -> None:
    request = Message(Type.READ, 2, 0, b"name\0").pack()
    for _ in range(20_000):
        guest.index(REQUESTS.producer, guest.index(REQUESTS.consumer))
        guest.put(REQUESTS, request * 40)
        guest.service.exchange(guest.memory)
        if guest.index(REQUESTS.producer) != guest.index(REQUESTS.consumer):
            break
    client = guest.service.daemon.clients[DOMID]
    assert len(client.unread) + len(client.received) < 1 << 18


def test_the_state_is_part_of_snapshots(guest: Guest) -> None:
    saved = guest.service.save()
    guest.service.daemon.as_toolstack().write("/x", b"1")
    guest.service.load(saved)
    assert guest.service.daemon.tree.get("/x") is None


def test_a_daemon_comes_back_from_plain_data_as_it_was_with_what_is_under_way(client: Client) -> None:
    client.write(f"{HOME}/data/a", b"1")
    client.write(f"{HOME}/data/b", b"2")
    client.ask(Type.WATCH, "data", "token")
    client.hear()
    number = int(client.ask(Type.TRANSACTION_START, "").rstrip(b"\0"))
    client.write(f"{HOME}/data/a", b"3", transaction=number)
    client.ask(Type.RM, f"{HOME}/data/b", transaction=number)
    client.connection.received += b"half"
    state = saved.save(client.daemon)
    assert where_not_plain(state) is None
    before = copy.deepcopy(client.daemon)
    client.connection.received.clear()
    assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
    for _ in range(2):
        client.daemon = saved.load(state)
        assert client.daemon == before
        assert saved.save(client.daemon) == state
        client.connection = client.daemon.clients[DOMID]
        client.connection.received.clear()
        client.hear()
        assert client.ask(Type.READ, f"{HOME}/data/a") == b"1"
        assert client.ask(Type.TRANSACTION_END, "T", transaction=number) == b"OK\0"
        assert client.ask(Type.READ, f"{HOME}/data/a") == b"3"
        assert client.ask(Type.READ, f"{HOME}/data/b") == b"enoent"
        assert set(client.hear()) == {("data/a", "token"), ("data/b", "token")}
