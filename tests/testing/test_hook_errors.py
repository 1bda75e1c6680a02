"""What a failed test shows of a hook that fails, whichever way, with and without workers of pytest-xdist."""

from __future__ import annotations

import pytest

from tests import misdeeds

pytest_plugins = ["pytester"]
FILE = misdeeds.__file__
TEST = """
import pytest

@pytest.mark.pvops_kinds("x86_64")
def test_it(call): call("wbinvd")
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_error_names_plugin_op_and_place_with_the_authors_frames_alone(
    pytester: pytest.Pytester, workers: str
) -> None:
    """A test on every backend, so that one pytest tells of all: no error, an exit or an interrupt, ends the others."""
    names = [f"late_{name}" for name in misdeeds.ERRORS]
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile(TEST)
    plugins = [word for name in names for word in ("--pvops-plugin", f"{FILE}:{name}")]
    result = pytester.runpytest_subprocess("-n", workers, "--pvops-backend", ",".join(names), *plugins)
    result.assert_outcomes(failed=len(names))
    for name, (_deed, said) in misdeeds.ERRORS.items():
        place = f"*HookError: {FILE}:late_{name}, entry point misdeeds:late_{name}, hook wbinvd, vcpu 0, rip 0x*"
        result.stdout.fnmatch_lines([f"{place}: late_{name}.wbinvd raised {said}"])
    shown = result.stdout.str()
    assert "pvops_core/machine" not in shown
    assert "pvops_core/session" not in shown


def test_a_fault_that_the_guest_died_of_is_shown(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile(TEST)
    result = pytester.runpytest_inprocess("--pvops-backend", "late_fault", "--pvops-plugin", f"{FILE}:late_fault")
    result.stdout.fnmatch_lines(["late_fault.wbinvd ran into this at *", "*PageFault: page fault at 0x1234*"])


def test_a_signal_handlers_exception_is_no_hooks(pytester: pytest.Pytester) -> None:
    """As pytest-timeout's: the test fails with it, under its own name."""
    pytester.makepyfile("""
import signal, pytest
from pvops_core.backends.blame import blamed

def handler(number, frame): raise TimeoutError("too long")

def test_it():
    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(TimeoutError), blamed(None, "it"):
            signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)

def test_an_interrupt():
    with pytest.raises(KeyboardInterrupt), blamed(None, "it"):
        signal.raise_signal(signal.SIGINT)
""")
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
