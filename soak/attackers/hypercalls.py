"""Random hypercalls on domains and hosts of some pages."""

from __future__ import annotations

import random
from typing import Final

from pvops_lguest.host.abi import ABIS
from pvops_xen.testing.guests import SmallGuest
from pvops_xen.testing.mutation import MutationError, MutationRun

from plugins.lguest.tests.rig import Host
from plugins.lguest.tests.test_hostile import storm
from soak.tally import Tally

COUNT: Final = 4000
STRETCH: Final = 200


def play(seed: int) -> Tally:
    """Some on a domain of either width, each run with another number of vCPUs, and some on an lguest host."""
    tally = Tally()
    for bits in (64, 32):
        with SmallGuest(bits, vcpus=1 + seed % 4) as guest:
            cpu = guest.hv.machine.vcpus[0]
            try:
                tally.count += MutationRun(guest.hv, cpu, seed, stretch=STRETCH).make(COUNT)
            except MutationError as error:
                tally.wrong.append(f"xen, {bits} bits: {error}")
    abi = sorted(ABIS)[seed % len(ABIS)]
    host = Host(abi, seed, {}).init()
    with host.machine:
        tally.count += storm(host.machine, host.platform, random.Random(seed), COUNT)
    return tally
