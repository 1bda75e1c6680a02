"""Sessions of the built-in guest, for a debugger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from pvops_core.backends import load_backends
from pvops_core.session import Session

MakeSession = Callable[..., Session]
LAYOUTS = {64: "6.1-64", 32: "2.6.24-pae"}


@pytest.fixture
def make_session() -> Iterator[MakeSession]:
    """Makes a session of the built-in guest."""
    backends = load_backends().backends
    with ExitStack() as stack:

        def make(backend: str = "native", bits: int = 64, **settings: int) -> Session:
            session = Session.of_builtin(LAYOUTS[bits], backend, backends=backends, **settings)  # type: ignore[misc]
            return stack.enter_context(session)

        yield make
