from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pvops_core.backends import chain, load_backends
from pvops_core.guests import Kernel
from pvops_core.session import Session
from tests.session.selfpatching import SelfPatching

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    backends = load_backends().backends
    kernel = Kernel(SelfPatching.of("mmu.write_cr3").build())
    with Session(kernel, chain(backends["native"], backends), memory=32 << 20) as made:
        yield made
