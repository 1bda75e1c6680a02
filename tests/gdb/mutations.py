"""Packets as they should not be."""

from __future__ import annotations

import random
from collections.abc import Iterator

PACKETS = (
    b"qSupported:multiprocess+;swbreak+;hwbreak+;vContSupported+",
    b"qXfer:features:read:target.xml:0,ffb",
    b"qXfer:threads:read::0,100",
    b"qRcmd," + b"ops mmu.*".hex().encode(),
    b"qThreadExtraInfo,2",
    b"qfThreadInfo",
    b"qC",
    b"Hg1",
    b"Hc-1",
    b"T2",
    b"g",
    b"p10",
    b"P3=00000000000000ff",
    b"mffffffff80100000,40",
    b"xffffffff80100000,40",
    b"Mffffffff80141000,2:1234",
    b"Xffffffff80141000,2:\x01}",
    b"Z0,ffffffff80100000,1",
    b"z1,ffffffff80100000,1",
    b"Z2,ffffffff80141000,8",
    b"vCont;s:1;c",
    b"vCont;C05:2;s",
    b"vMustReplyEmpty",
    b"?",
    b"s",
    b"C05",
    b"D;1",
    b"k",
)


def mutated(count: int, seed: int) -> Iterator[bytes]:
    """So many packets, each with some changes."""
    chance = random.Random(seed)
    for _ in range(count):
        packet = bytearray(chance.choice(PACKETS))
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(packet) + 1)
            match chance.randrange(4):
                case 0 if at < len(packet):
                    packet[at] = chance.randrange(256)
                case 1:
                    packet[at:at] = chance.randbytes(chance.randint(1, 6))
                case 2:
                    del packet[at : at + chance.randint(1, 5)]
                case _:
                    packet[at:at] = chance.choice([b"ffffffffffffffff", b",", b";", b":", b"-1", b"0x", b"_", b"="])
        yield bytes(packet)
