"""The generation of the ABI, as an image shows it."""

from __future__ import annotations

import struct

import pytest
from pvops_lguest.host.generation import choose_abi

from plugins.lguest.tests.launcher_rig import EVERY
from plugins.lguest.tests.small import BASE, SmallGuest
from pvops_core.errors import ImageError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image


@pytest.mark.parametrize("name", ["2.6.23", "2.6.24", "2.6.30"])
def test_hosts_before_pae_refuse_its_kernels(name: str) -> None:
    with pytest.raises(UsageError, match=r"has no guests with PAE; the first are those of 2\.6\.31"):
        SmallGuest(name, pae=True).session()


@EVERY
def test_what_the_image_shows_is_enough_without_symbols_of_data(name: str) -> None:
    guest = SmallGuest(name)
    del guest.symbols["lguest_data"]
    kernel = Kernel(load_image(guest.image(), name))
    if name == "2.6.23":
        with pytest.raises(ImageError, match="built without LGUEST_GUEST"):
            choose_abi(kernel, "")
    else:
        assert choose_abi(kernel, "").name == name
    assert choose_abi(kernel, "2.6.35").name == "2.6.35"


def test_a_shared_page_of_another_shape_is_told_from_none() -> None:
    image = SmallGuest("2.6.35").image()
    members = struct.pack("<II", BASE, 0x80)
    assert image.count(members) == 1
    kernel = Kernel(load_image(image.replace(members, bytes(4) + members[:4]), "4.9"))
    with pytest.raises(ImageError, match="has the shape of no generation that is known"):
        choose_abi(kernel, "")
