"""The example that lives outside the tree's packaging works with pvops as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pvops_core.backends import Found, chain, discover, load_backends

EXAMPLE = Path(__file__).parents[2] / "examples" / "pvops-kvm"


def _installed() -> bool:
    return any(found.distribution == "pvops-kvm" for found in discover(environ={}))


@pytest.mark.skipif(_installed(), reason="pvops-kvm is installed: it is loaded from there")
def test_it_is_listed_and_loaded_from_its_folder() -> None:
    (found,) = discover([str(EXAMPLE)], environ={"PVOPS_DISABLE_PLUGINS": "pvops-native,pvops-xen,pvops-lguest"})
    assert isinstance(found, Found)
    assert found.entry_point == "kvm = pvops_kvm:backend"
    assert not found.problem
    loaded = load_backends([str(EXAMPLE)], environ={})
    assert not [error for error in loaded.errors if error.distribution == "pvops-kvm"]
    assert [link.name for link in chain(loaded.backends["kvm"], loaded.backends)] == ["kvm", "native"]
