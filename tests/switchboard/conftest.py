"""Sessions of the built-in guest on bare metal, assembled but not started."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pvops_core.backends import API, Backend, load_backends
from pvops_core.guests import builtin_guest
from pvops_core.session import Session

LAYOUTS = ("2.6.24", "2.6.24-pae", "6.1-64")

Make = Callable[..., Session]


@pytest.fixture(scope="session")
def native() -> Backend:
    return load_backends().backends["native"]


@pytest.fixture
def make(native: Backend) -> Iterator[Make]:
    """Assemble a session of a layout; with ``ops`` a backend of that class stands before bare metal."""
    made: list[Session] = []

    def session(layout: str, ops: type | None = None, **settings: object) -> Session:
        chain = (native,)
        if ops is not None:
            chain = (Backend(name="other", api=API, base="native", ops=ops), native)
        made.append(Session(builtin_guest(layout), chain, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield session
    for one in made:
        one.close()
