"""Fixtures: lguest hosts that are closed when the test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .rig import Host

MakeHost = Callable[..., Host]


@pytest.fixture
def make_host() -> Iterator[MakeHost]:
    hosts: list[Host] = []

    def make(abi: str = "2.6.24", *, seed: int = 0, **options: str) -> Host:
        hosts.append(Host(abi, seed, options))
        return hosts[-1]

    yield make
    for host in hosts:
        host.machine.close()


@pytest.fixture
def host(make_host: MakeHost) -> Host:
    return make_host()
