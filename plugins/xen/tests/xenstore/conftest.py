from __future__ import annotations

import pytest
from pvops_xen.xenstore.service import StoreService
from pvops_xen.xenstore.toolstack import DomainFacts, write_domain

from plugins.xen.tests.xenstore_rig import DOMID, Client, Guest
from pvops_core.machine.memory import PhysicalMemory


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def guest() -> Guest:
    memory = PhysicalMemory(1 << 16)
    service = StoreService(DOMID)
    service.open(memory, 4096, 1)
    write_domain(service.daemon, DomainFacts(DOMID, "guest", 1, 1, (1, 1), (2, 2)))
    return Guest(memory, service)
