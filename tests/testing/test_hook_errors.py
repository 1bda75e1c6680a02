"""What a failed test shows of a hook that fails, whichever way, with and without workers of pytest-xdist."""

from __future__ import annotations

import signal

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


def run(pytester: pytest.Pytester, name: str, workers: str, test: str = TEST) -> pytest.RunResult:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\nlog_level = INFO\n")
    pytester.makepyfile(test)
    backend = ("--pvops-backend", name, "--pvops-plugin", f"{FILE}:{name}")
    return pytester.runpytest_subprocess("-n", workers, *backend)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_a_hook_says_is_captured_as_a_tests_own(pytester: pytest.Pytester, workers: str) -> None:
    result = run(pytester, "late_talks", workers, f"{TEST.rstrip()}; assert False\n")
    result.assert_outcomes(failed=1, warnings=1)
    for title, said in (
        ("stdout call", "printed by a hook"),
        ("stderr call", "complained"),
        ("log call", "*logged 7"),
    ):
        result.stdout.fnmatch_lines([f"*Captured {title}*", said], consecutive=False)
    assert "past sys.stdout" in result.stdout.str()
    assert "UserWarning: warned" in result.stdout.str()


@pytest.mark.parametrize(("deed", "status"), [("ends", 9), ("aborts", -signal.SIGABRT), ("kills", -signal.SIGKILL)])
def test_a_hook_that_ends_the_process_ends_its_worker_alone(pytester: pytest.Pytester, deed: str, status: int) -> None:
    """Without workers it ends pytest, as any test that does so."""
    result = run(pytester, f"late_{deed}", "2", f"{TEST}\ndef test_other(): pass\n")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.fnmatch_lines([f"worker 'gw?' crashed while running 'test_*::test_it?late_{deed}-*"])
    assert run(pytester, f"late_{deed}", "0").ret == status


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_fault_that_the_guest_died_of_is_shown(pytester: pytest.Pytester, workers: str) -> None:
    result = run(pytester, "late_fault", workers)
    result.stdout.fnmatch_lines(["late_fault.wbinvd ran into this at *", "*PageFault: page fault at 0x777700001234*"])


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
