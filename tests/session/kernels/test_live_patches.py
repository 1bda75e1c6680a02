"""Live patches of the kernels that Debian ships, while user space looks on."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pvops_xen.hypervisor.memory.audit import audit

from pvops_core.backends import load_backends
from pvops_core.cli import main
from pvops_core.errors import MachineError, UsageError
from pvops_core.guests import Kernel
from pvops_core.images import load_image
from pvops_core.kinds import MachineKind
from pvops_core.livepatch.errors import LivepatchError
from pvops_core.livepatch.guest import build_id_of
from pvops_core.livepatch.kernel import live_patches
from pvops_core.livepatch.payload.builder import RELATIVE, PayloadBuilder, Reference
from pvops_core.livepatch.payload.compiling import size_in
from pvops_core.livepatch.payload.model import Command, HookPhase, State
from pvops_core.livepatch.payload.pages import FRAMES
from pvops_core.machine import GuestFault
from pvops_core.patching.poke import PokeStep
from pvops_core.patching.sites import read_sites
from pvops_core.session import Session
from pvops_core.x86 import NO_EXECUTE, PAGE, WRITABLE
from tests.ramdisk import WATCHING, with_init
from tests.session.kernels.live import SHOW, Live, replacing, showing

CLOUD, PAE = "vmlinuz-6.1.0-56-cloud-amd64", "vmlinuz-6.1.0-50-686-pae"
SOON = 1_000_000
IDLE = "default_idle"
SPIN = bytes.fromhex("f390ebfc")
"""l: pause; jmp l"""

pytestmark = [pytest.mark.kernel, pytest.mark.slow]


@pytest.fixture(scope="module")
def booted(kernel_path: Callable[[str], Path]) -> Iterator[Callable[[], Live]]:
    """A kernel on bare metal as it was when user space began to look; every test gets it so."""
    live = Live(kernel_path(CLOUD), "initramfs.cpio.gz", "native", "console=ttyS0", 1)
    heard, start = live.heard, live.machine.snapshot()

    def again() -> Live:
        live.machine.restore(start)
        live.heard = heard
        live.guest.poker.observer = lambda _step: None
        return live

    with live.session:
        yield again


def test_user_space_sees_a_patch_come_and_go(booted: Callable[[], Live]) -> None:
    booted().rounds(10)


def test_user_space_of_a_32_bit_kernel_too(kernel_path: Callable[[str], Path]) -> None:
    """It copies its part of the page tables for every process, so payloads come to each when it first needs them."""
    live = Live(kernel_path(PAE), "initramfs-i386.cpio.gz", "native", "console=ttyS0", 1)
    with live.session:
        live.rounds(4)


def test_a_hundred_rounds_under_xen_with_four_vcpus(kernel_path: Callable[[str], Path]) -> None:
    live = Live(kernel_path(CLOUD), "initramfs.cpio.gz", "xen", "console=hvc0 earlyprintk=xen", 4)
    with live.session:
        live.rounds(100)
        assert rights(live, live.guest.area.landing) == "rx"
        assert not audit(live.session.platform.hv), "Xen's counts are right"  # type: ignore[attr-defined]


def rights(live: Live, va: int) -> str:
    """What a vCPU may do with a page, as its page tables say."""
    for vcpu in live.machine.vcpus:
        try:
            flags = vcpu.walk(va, user=False).flags
        except GuestFault:
            continue
        return f"r{'w' * bool(flags & WRITABLE)}{'x' * (not flags & NO_EXECUTE)}"
    return ""


def test_pages_have_the_rights_that_their_sections_ask_for(booted: Callable[[], Live]) -> None:
    live = booted()
    made = live.builder("rights")
    made.data("variable", b"1234")
    made.data("constant", b"1234", writable=False)
    live.registry.upload("rights", replacing(made, live.image, "quick", bytes.fromhex("31c0c3"), []))
    found = live.registry.symbols
    assert rights(live, live.registry.record("rights").payload.functions[0].new_address) == "rx"
    assert rights(live, found["variable"]) == "rw"
    assert rights(live, found["constant"]) == "r"
    live.registry.action("rights", Command.UNLOAD)
    pages = range(live.guest.area.base + PAGE, live.guest.area.base + 8 * PAGE, PAGE)
    assert {rights(live, page) for page in pages} == {""}


def test_no_function_goes_while_a_task_sleeps_in_it(booted: Callable[[], Live]) -> None:
    live = booted()
    made = live.builder("sleeper")
    made.text("new_kthreadd", SPIN)
    made.replace("kthreadd", "new_kthreadd", old_size=size_in(live.image, "kthreadd"))
    live.registry.upload("sleeper", made.build())
    text = live.session.text_sha256()
    assert live.act("sleeper", Command.APPLY, timeout_ns=SOON) == -errno.EBUSY
    late = next(message for message in live.patches.messages if "Timed out" in message)
    assert "task 2 (kthreadd) sleeps in kthreadd" in late
    assert live.session.text_sha256() == text
    live.upload("Hello")
    assert live.act("Hello", Command.APPLY) == 0
    live.hear("seen Hello")


def test_no_payload_goes_while_a_vcpu_executes_it(booted: Callable[[], Live]) -> None:
    """The new function waits for a word to change: nobody can revert it before, and anybody afterwards."""
    live = booted()
    made = live.builder("waiting")
    made.data("gate", bytes(4))
    # sti; l: pause; mov eax, [rel gate]; test eax, eax; jz l; xor eax, eax; ret
    code = bytes.fromhex("fb f390 8b05 00000000 85c0 74f4 31c0 c3")
    live.registry.upload(
        "waiting", replacing(made, live.image, "waiting_show", code, [Reference(5, "gate", RELATIVE[64], -4)])
    )
    assert live.act("waiting", Command.APPLY) == 0
    start, end = live.registry.record("waiting").payload.functions[0].new_address, 0x1000
    while not 0 <= live.machine.vcpus[0].rip - start < end:
        live.machine.run(max_ns=50_000)
    assert live.act("waiting", Command.REVERT, timeout_ns=SOON) == -errno.EBUSY
    late = next(message for message in live.patches.messages if "Timed out" in message)
    assert "payload waiting" in late
    assert live.registry.get("waiting").state is State.APPLIED
    live.guest.write_data(live.registry.symbols["gate"], b"\1")
    assert live.act("waiting", Command.REVERT) == 0
    live.hear("seen Linux version")
    live.sound()


def test_a_vcpu_with_interrupts_off_is_named(booted: Callable[[], Live]) -> None:
    live = booted()
    made = live.builder("deaf")
    live.registry.upload("deaf", replacing(made, live.image, "deaf_show", b"\xfa" + SPIN, []))
    live.upload("Hello")
    assert live.act("deaf", Command.APPLY) == 0
    live.machine.run(max_ns=20_000_000)
    text = live.session.text_sha256()
    assert live.act("deaf", Command.REVERT, timeout_ns=SOON) == -errno.EBUSY
    assert any("vcpu 0 interrupts are off" in message for message in live.patches.messages)
    assert live.session.text_sha256() == text


def test_a_vcpu_in_user_mode_comes_in_at_once(booted: Callable[[], Live]) -> None:
    live = booted()
    live.upload("Hello")
    while live.machine.vcpus[0].cpl != 3:
        live.machine.run(max_ns=10_000)
    live.registry.action("Hello", Command.APPLY)
    before = live.machine.clock.ns
    live.machine.run(max_ns=1000)
    assert live.registry.get("Hello").state is State.APPLIED
    assert live.machine.clock.ns - before < 10_000
    live.hear("seen Hello")


@pytest.mark.parametrize("mode", [0, 3])
def test_hooks_call_the_kernel_from_any_mode(booted: Callable[[], Live], mode: int) -> None:
    """Of a process without the kernel's address space too: page-table isolation is on."""
    live = booted()
    made = live.builder("talker")
    made.data("words", b"\x016a hook speaks\n\0", writable=False)
    # mov rdi, words; xor eax, eax; call _printk; xor eax, eax; ret, on an aligned stack
    code = bytes.fromhex("4883ec08 48c7c700000000 31c0 e800000000 31c0 4883c408 c3")
    made.text("talk", code, [Reference(7, "words", 11), Reference(14, "_printk", RELATIVE[64], -4)])
    for phase in (HookPhase.LOAD, HookPhase.PREAPPLY):
        made.hook(phase, "talk")
    live.registry.upload("talker", replacing(made, live.image, "quick", bytes.fromhex("31c0c3"), []))
    while live.machine.vcpus[0].cpl != mode:
        live.machine.run(max_ns=1_000)
    assert live.act("talker", Command.APPLY) == 0
    live.hear("a hook speaks")
    live.hear("a hook speaks")
    live.sound()


def test_an_nmi_waits_until_the_text_is_whole(booted: Callable[[], Live]) -> None:
    live = booted()
    live.upload("Hello")
    vcpu, seen = live.machine.vcpus[0], []

    def interrupt(step: object) -> None:
        vcpu.raise_unmaskable()
        seen.append((step, bytes(live.guest.read(live.image.symbols[SHOW], 1))))

    live.guest.poker.observer = interrupt
    assert live.act("Hello", Command.APPLY) == 0
    assert seen
    live.hear("seen Hello")
    live.hear("NMI received for unknown reason")


def test_early_uploads_are_put_off(kernel_path: Callable[[str], Path]) -> None:
    """Before the kernel runs on its own page tables there is no place for a payload."""
    image = load_image(kernel_path(CLOUD))
    backends = load_backends().backends
    with Session(Kernel(image), (backends["native"],), tool_frames=FRAMES) as session:
        patches = live_patches(session)
        with pytest.raises(LivepatchError) as refused:
            patches.registry.upload("early", b"\x7fELF")
        assert refused.value.errno == errno.EAGAIN
        assert not patches.registry.records
    with (
        Session(Kernel(image), (backends["native"],)) as session,
        pytest.raises(UsageError, match="tool_frames"),
    ):
        live_patches(session)


def test_a_function_with_paravirt_sites_comes_back_as_the_kernel_patched_it(booted: Callable[[], Live]) -> None:
    """The kernel has patched the sites of its idle function itself; the payload stands over them and goes again."""
    live = booted()
    start = live.image.symbols[IDLE]
    size = size_in(live.image, IDLE)
    sites = [site for site in read_sites(live.image) if start <= site.address < start + size]
    patched = live.guest.read(start, size)
    assert sites
    assert patched != live.image.read(start, size), "it is not as it was built"
    made = live.builder("idle")
    made.text("new_idle", bytes.fromhex("fbf4c3"))  # sti; hlt; ret
    made.replace(IDLE, "new_idle", old_size=size)
    live.registry.upload("idle", made.build())
    live.upload("Hello")
    assert live.act("idle", Command.APPLY) == 0
    assert live.guest.read(start, 1) == b"\xe9"
    live.machine.run(max_ns=20_000_000)
    assert live.act("Hello", Command.REPLACE) == 0
    assert live.guest.read(start, size) == patched
    live.hear("seen Hello")
    live.sound()


@pytest.mark.parametrize("command", [Command.APPLY, Command.REVERT, Command.REPLACE])
def test_a_fault_at_any_step_leaves_the_kernel_as_it_was(booted: Callable[[], Live], command: Command) -> None:
    live = booted()
    live.upload("Hello")
    live.upload("Other")
    if command is not Command.APPLY:
        assert live.act("Hello", Command.APPLY) == 0
    name = "Other" if command is Command.REPLACE else "Hello"
    text, states = live.session.text_sha256(), [record.state for record in live.registry.records]
    for step in PokeStep:

        def fail(at: PokeStep, step: PokeStep = step) -> None:
            if at is step:
                raise MachineError(f"injected at {step.value}")

        live.guest.poker.observer = fail
        assert live.act(name, command) == -errno.EIO
        assert live.session.text_sha256() == text
        assert [record.state for record in live.registry.records] == states
    live.guest.poker.observer = lambda _step: None
    assert live.act(name, command) == 0
    live.hear({Command.APPLY: "seen Hello", Command.REVERT: "seen", Command.REPLACE: "seen Other"}[command])
    live.sound()


def test_a_script_patches_a_boot(
    kernel_path: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = kernel_path(CLOUD)
    image = load_image(kernel)
    host = build_id_of(image)
    payload, script, ramdisk = tmp_path / "hello.livepatch", tmp_path / "script", tmp_path / "ramdisk"
    payload.write_bytes(
        showing(PayloadBuilder(MachineKind.X86_64, build_id=b"1", depends=host, host=host), image, "Hello")
    )
    script.write_text(f'when "seen Linux" load {payload}\nwhen "seen Hello" revert hello\n+1us get hello\n')
    ramdisk.write_bytes(with_init(kernel.with_name("initramfs.cpio.gz"), WATCHING))
    words = ["--initrd", str(ramdisk), "--cmdline", "console=ttyS0 quiet", "--livepatch", str(script)]
    target = tmp_path / "boot.json"
    assert main(["boot", str(kernel), *words, "--until", "seen Hello", "--json", str(target)]) == 1
    document = json.loads(target.read_text())
    assert document["outcome"] == "until"
    assert [each["exit"] for each in document["livepatch"]["commands"]] == [0]
    assert document["livepatch"]["not_done"] == ["revert hello", "get hello"]
    assert [each["state"] for each in document["livepatch"]["payloads"]] == ["APPLIED"]
    out = capsys.readouterr().out
    assert "Applying hello... completed" in out
    assert "not done            revert hello" in out
    script.write_text("1us apply\n")
    assert main(["boot", str(kernel), *words]) == 2
    assert "script:1" in capsys.readouterr().err
