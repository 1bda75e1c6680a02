"""The plugin as a project of somebody else's sees it: in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest_plugins = ["pytester"]

HEAD = "import pytest\n"


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    return pytester


def run(project: pytest.Pytester, text: str, *options: str) -> pytest.RunResult:
    project.makepyfile(HEAD + text)
    return project.runpytest_inprocess("-rs", *options)


def test_loading_it_imports_neither_emulator_nor_compiler() -> None:
    code = "import sys, pvops_core.testing.plugin; print([n for n in sys.modules if n.split('.')[0] in BAD])"
    code = code.replace("BAD", "('unicorn', 'numba', 'capstone', 'numpy', 'llvmlite')")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_in_the_same_process_leaves_later_tests_what_they_had(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    pytester.makepyfile("""
pytest_plugins = ["pytester"]

def test_first(pytester):
    pytester.makepyfile("def test_inner(call, patch): call('wbinvd')")
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=3)

def test_second():
    from pvops_core.backends import load_backends
    from pvops_core.session import Session
    with Session.of_builtin("6.1-64", "xen", backends=load_backends().backends) as session:
        assert session.run().reason == "poweroff"
""")
    pytester.runpytest_subprocess().assert_outcomes(passed=2)


def test_a_test_runs_on_every_kind_its_backend_can_be(project: pytest.Pytester) -> None:
    text = "def test_it(machine, vcpu, backend): assert vcpu is machine.vcpus[0] and backend.name == 'native'\n"
    run(project, text).assert_outcomes(passed=3)
    run(project, text.replace("native", "xen"), "--pvops-backend", "xen").assert_outcomes(passed=2)


def test_markers_choose_machines(project: pytest.Pytester) -> None:
    text = """
@pytest.mark.pvops_kinds("i386")
@pytest.mark.pvops_vcpus(1, 2, 3)
def test_vcpus(machine):
    assert machine.kind.value == "i386"

@pytest.mark.pvops_ops("store_gdt")
def test_op(session):
    assert session.layout.name.startswith("2.6")

@pytest.mark.pvops_needs("mmu.readonly_tables")
def test_needs(session):
    pass
"""
    result = run(project, text)
    result.assert_outcomes(passed=5, skipped=1)
    result.stdout.fnmatch_lines(["*native: needs mmu.readonly_tables"])


def test_markers_narrow_what_was_chosen_and_add_nothing(project: pytest.Pytester) -> None:
    """Other backends and kinds are left out with the reason, not run though the marker names them."""
    text = """
@pytest.mark.pvops_backends("xen")
def test_on_xen(backend):
    assert backend.name == "xen"

@pytest.mark.pvops_kinds("i386")
def test_on_i386(machine):
    assert machine.kind.value == "i386"
"""
    result = run(project, text, "--pvops-backend", "native")
    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["SKIPPED *native: *"])
    run(project, text, "--pvops-backend", "xen").assert_outcomes(passed=2, skipped=1)


def test_a_test_starts_where_the_one_before_it_started(project: pytest.Pytester) -> None:
    text = """
@pytest.mark.pvops_kinds("x86_64")
@pytest.mark.parametrize("number", range(3))
def test_it(call, session, number):
    place = session.guest.symbols["empty_zero_page"]
    assert call.load(place) == 0
    call.store(place, 7)
    session.switchboard.switch("io_delay", None, by="test")
    assert len(session.switchboard.history) == 1
"""
    run(project, text).assert_outcomes(passed=3)


def test_a_failure_shows_the_machine_and_how_to_replay_it(project: pytest.Pytester) -> None:
    text = """
@pytest.mark.pvops_kinds("x86_64")
def test_it(call, vcpu):
    call.store(0x1000, 1)
"""
    result = run(project, text, "--pvops-seed", "7")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*CallError: a store to 0x1000 did not come back: crash*vector 14*address 0x1000",
            "*pvops replay*",
            "*pytest *test_it*native-6.1-64-1cpu* --pvops-backend native --pvops-seed 7",
            "*pvops machine*",
            "vcpu 0 at 0xffffffff80*<*>, level 0*",
            "  > 0x*",
            "registers that changed since the test began:",
            "  cr2: 0x0 -> 0x1000",
            "page walk of 0xffffffff80*-> physical 0x*",
            "last events of *",
        ]
    )


@pytest.mark.parametrize("name", ["nobody", "native,nobody"])
def test_an_unknown_backend_is_named_without_a_traceback(project: pytest.Pytester, name: str) -> None:
    result = run(project, "def test_it(machine): pass\n", "--pvops-backend", name)
    assert "plugin.py" not in result.stdout.str()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*no backend nobody; there are *native*"])


def test_no_kernel_is_a_skip_with_the_reason(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PVOPS_KERNELS", raising=False)
    result = run(project, "def test_it(kernel): pass\n")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*no kernel image: give --pvops-kernel*"])


SETTINGS = """
@pytest.mark.pvops_kinds("x86_64")
def test_it(session): assert session.platform.settings.rtc == 5

@pytest.mark.pvops_set(rtc=6, cpu="min")
@pytest.mark.pvops_kinds("x86_64")
def test_marked(session):
    assert session.platform.settings.rtc == 6
    assert "nx" not in session.machine.features

@pytest.mark.pvops_set(console_ring=False)
@pytest.mark.pvops_kinds("x86_64")
def test_xen(session): assert session.platform.settings.console_ring is False
"""


def test_a_test_has_the_settings_of_the_command_line_and_of_its_marker(project: pytest.Pytester) -> None:
    options = ("--pvops-backend", "native,xen", "--pvops-set", "rtc=5", "--pvops-set", "event_channels=9")
    result = run(project, SETTINGS, *options)
    result.assert_outcomes(passed=5, skipped=1)
    result.stdout.fnmatch_lines(["*native: has no setting console_ring"])


def test_a_test_that_failed_says_its_settings(project: pytest.Pytester) -> None:
    result = run(project, SETTINGS.replace("== 5", "== 7"), "--pvops-set", "rtc=5")
    result.stdout.fnmatch_lines(["*test_it* --pvops-backend native --pvops-seed 0 --pvops-set rtc=5"])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("rtx=5", "setting rtx='5': no setting 'rtx'*did you mean rtc?*"),
        ("rtc=noon", "setting rtc='noon': a number from 0*"),
        ("rtc", "setting 'rtc' is not NAME=VALUE"),
    ],
)
def test_a_wrong_setting_ends_the_run(project: pytest.Pytester, option: str, told: str) -> None:
    result = run(project, SETTINGS, "--pvops-set", option)
    assert result.ret in {2, 4}
    (result.stderr if result.ret == pytest.ExitCode.USAGE_ERROR else result.stdout).fnmatch_lines([f"*{told}"])
    run(project, SETTINGS.replace("rtc=6", "rtx=6")).assert_outcomes(errors=1)


def test_a_failure_says_of_a_processor_that_was_not_started_no_more_than_that(project: pytest.Pytester) -> None:
    head = '@pytest.mark.pvops_vcpus(2)\n@pytest.mark.pvops_kinds("x86_64")\n'
    result = run(project, f"{head}def test_it(call): assert not call('read_cr0')\n")
    result.stdout.fnmatch_lines(["vcpu 1 has not been started"])
    assert "vma_vm_mm_offset" not in result.stdout.str()
