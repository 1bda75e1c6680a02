"""States of a file with right digests, made by somebody else: refused by a typed error, or harmless."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pvops_core.backends import load_backends
from pvops_core.errors import PvopsError
from pvops_core.saved import container
from pvops_core.saved.errors import SavedError
from pvops_core.session import Session

if TYPE_CHECKING:
    from pvops_core.backends import Backend

TRIES = int(os.environ.get("PVOPS_HOSTILE_STATES", "40"))
ODD: tuple[Any, ...] = (None, -1, 0, 1 << 31, 1 << 63, -(1 << 63), "", "text", b"", b"\xff" * 40, [], {}, 1.5, True)


@pytest.fixture(scope="module")
def backends() -> dict[str, Backend]:
    return dict(load_backends().backends)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:  # noqa: ANN401 - anything plain
    """Where in a state there is something."""
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [at, *(place for key, each in inner[:40] for place in places(each, (*at, key)))]


def changed(states: list[Any], chance: random.Random) -> list[Any]:
    """Something of it is something else, or not there, or there twice."""
    made = msgspec.msgpack.decode(msgspec.msgpack.encode(states), strict=False)
    for _ in range(chance.randrange(1, 4)):
        *way, last = chance.choice([place for place in places(made) if place])
        holder = made
        for key in way:
            holder = holder[key]
        match chance.randrange(3):
            case 0 if isinstance(holder, list):
                del holder[last]
            case 1 if isinstance(holder, list):
                holder.append(holder[last])
            case _:
                holder[last] = chance.choice(ODD)
    return made


def rewritten(path: Path, states: list[Any]) -> None:
    """The file with other states, and right digests."""
    opened = container.read(path)
    head, data = opened.head, msgspec.msgpack.encode(states)
    beside = path.with_name("forged")
    with beside.open("wb") as file:
        container.write(file.fileno(), (head.key, head.origin, head.place, head.vcpu, head.ns), data, opened.memory)


@pytest.mark.parametrize(("backend", "layout"), [("native", "6.1-64"), ("xen", "6.1-64"), ("lguest", "2.6.24")])
def test_states_that_somebody_made_up_end_in_typed_errors(
    backends: dict[str, Backend], backend: str, layout: str, tmp_path: Path
) -> None:
    chance, path = random.Random(17), tmp_path / "saved"
    with Session.of_builtin(layout, backend, backends=backends, vcpus=1, memory=4 << 20) as session:
        session.run(max_ns=60_000)
        session.save(path)
    states = msgspec.msgpack.decode(container.read(path).states)
    refused = 0
    for _ in range(TRIES):
        rewritten(path, changed(states, chance))
        try:
            with Session.load(tmp_path / "forged", backends=backends) as loaded:
                loaded.run(max_ns=1000, max_seconds=5)
        except SavedError:
            refused += 1
        except PvopsError:
            pass  # a guest that nobody has booted
    assert refused > TRIES // 3
