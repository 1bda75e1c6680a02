"""What goes over the socket to a debugger stub, and every way in which the other end may fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pvops_core.recording.stub import CHUNK, RecordingError, Stub
from pvops_core.testing.qemu import QemuMachine, Story, framed


@contextmanager
def peer(story: Story) -> Iterator[Stub]:
    """A stub with a machine at its other end."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=lambda: QemuMachine(story).serve(theirs))
    thread.start()
    try:
        yield Stub(ours, 20)
    finally:
        ours.close()
        thread.join()
        theirs.close()


@contextmanager
def saying(*replies: bytes, seconds: float = 20) -> Iterator[Stub]:
    """A stub whose other end has said all it has to say, and goes away where the last of that is empty."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for reply in replies:
            theirs.sendall(reply)
        if replies and not replies[-1]:
            theirs.shutdown(socket.SHUT_WR)
        yield Stub(ours, seconds)


def test_a_machine_is_stopped_and_read() -> None:
    data = bytes(range(256)) * 20
    stops = [{"rip": rip, "rsp": 7, "rdi": 5, "rax": 1, "writes": {}} for rip in (0x10, 0x20, 0x30)]
    with peer(Story({0x1000: data.hex()}, stops)) as stub:
        stub.greet()
        stub.break_at(0x20)
        stub.go()
        assert stub.registers() == {"rip": 0x20, "rsp": 7, "rdi": 5, "rax": 1}
        assert stub.read(0x1003, 3 * CHUNK + 5) == data[3 : 3 * CHUNK + 8]
        assert stub.read(0x1000, 0) == b""
        with pytest.raises(RecordingError, match="cannot read 2 bytes at 0x23ff"):
            stub.read(0x1000 + len(data) - 1, 2)
        stub.clear(0x20)
        stub.step()
        with pytest.raises(RecordingError, match=r"the machine ended \('W00'\)"):
            stub.go()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"+$T05#00", "checksum is not b'00'"),
        (b"", "QEMU is gone"),
        (b"+" + framed("OK"), "does not stand still: 'OK'"),
        (b"x" * (1 << 17), "more than 65536 letters"),
    ],
)
def test_a_greeting_that_is_none(reply: bytes, message: str) -> None:
    with saying(reply) as stub, pytest.raises(RecordingError, match=message):
        stub.greet()


def test_silence_ends_after_some_time() -> None:
    with saying(seconds=0.05) as stub, pytest.raises(RecordingError, match=r"nothing happened in 0\.05 seconds"):
        stub.go()


def test_a_reply_may_come_in_pieces_and_with_the_next() -> None:
    whole = b"+" + framed("T05") + b"+" + framed("OK")
    with saying(whole[:3], whole[3:]) as stub:
        stub.greet()
        stub.break_at(1)


def test_bytes_that_are_none() -> None:
    with saying(b"+" + framed("zz"), b"+" + framed("00")) as stub:
        with pytest.raises(RecordingError, match="'zz' where bytes were due"):
            stub.registers()
        with pytest.raises(RecordingError, match="sent 1 bytes of registers"):
            stub.registers()


def test_a_machine_without_breakpoints() -> None:
    with saying(b"+" + framed("")) as stub, pytest.raises(RecordingError, match="takes no hardware breakpoint"):
        stub.break_at(0x10)


def test_a_socket_that_is_closed() -> None:
    with saying() as stub:
        stub._connection.close()
        with pytest.raises(RecordingError, match="QEMU is gone"):
            stub.go()


def test_an_end_that_nobody_waits_for_an_answer_to() -> None:
    with saying(b"+" + framed("W00")) as stub:
        plain = stub._connection

        class Gone:
            def sendall(self, data: bytes) -> None:
                if data == b"+":
                    raise BrokenPipeError(32, "Broken pipe")

            def recv(self, size: int) -> bytes:
                return plain.recv(size)

        stub._connection = Gone()  # type: ignore[assignment]
        with pytest.raises(RecordingError, match=r"the machine ended \('W00'\)"):
            stub.go()
