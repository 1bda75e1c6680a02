"""What the backends of a chain say of a real kernel, and what of the built-in guest alone."""

from __future__ import annotations

from pvops_lguest import backend as lguest
from pvops_native import backend as native

from pvops_core.backends import Backend
from pvops_core.backends.fills import fills_of, forces_of


def test_what_is_forced_on_the_builtin_guest_is_no_fill_of_a_real_kernel_s() -> None:
    lower = Backend(name="lower", api=2, base="native", forces=frozenset({"XENPV"}))
    upper = Backend(name="upper", api=2, base="lower", forces=frozenset({"PVUNLOCK"}))
    chain = (upper, lower, native)
    assert fills_of(chain) == [native.kernel]
    assert forces_of(chain) == {"XENPV", "PVUNLOCK"}


def test_a_base_s_fill_comes_first() -> None:
    upper = Backend(name="upper", api=2, base="native", kernel=lguest.kernel)
    assert fills_of((upper, native)) == [native.kernel, upper.kernel]
