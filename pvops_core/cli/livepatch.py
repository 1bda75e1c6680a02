"""``pvops livepatch``: make payloads, look into them, and live-patch a guest while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final

import typer

from pvops_core.backends.choices import choices_for, parse_choices
from pvops_core.cli import livepatch_verbs
from pvops_core.cli.common import (
    STDOUT,
    ExitCode,
    JsonOption,
    PluginOption,
    print_table,
    progress,
    read_file,
    usage_alone,
    write_file,
    write_json,
)
from pvops_core.cli.options import runoptions
from pvops_core.errors import UsageError, printable

if TYPE_CHECKING:
    from pvops_core.images import KernelImage
    from pvops_core.kinds import MachineKind
    from pvops_core.livepatch.control.findings import PayloadShown
    from pvops_core.machine import Stop
    from pvops_core.session import Session

livepatch: Final = typer.Typer(
    name="livepatch",
    invoke_without_command=True,
    callback=usage_alone,
    add_completion=False,
    rich_markup_mode=None,
    help="Live-patch a guest while it runs.",
)
livepatch_verbs.add_to(livepatch)
_CHUNK_NS = 1_000_000
LayoutOption = Annotated[str, typer.Option(metavar="NAME", help="Layout of the built-in guest.")]


@livepatch.command()
def build(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="C or assembly file.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Payload file to write.")],
    *,
    function: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD[=NEW]",
            help="Function to replace; NEW is new_OLD if not given, nops if empty; may be repeated. Of several "
            "functions of one name OLD says which: name,2 or name@address.",
        ),
    ] = None,
    layout: LayoutOption = "6.1-64",
    kernel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Kernel image that it is for, in place of the guest.")
    ] = None,
    depends: Annotated[
        str | None,
        typer.Option(metavar="HEX", help="Build-id of the payload to apply it on; the guest's if not given."),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=HEX", help="Bytes that a function to replace must begin with, to be applied; may be repeated."
        ),
    ] = None,
    no_host_id: Annotated[
        bool, typer.Option("--no-host-id", help="Leave out which guest it is for, as a test that uploads refuse it.")
    ] = False,
    json: JsonOption = None,
) -> int:
    """Make a payload of C or assembly.

    Exit code: 0 made, 2 the source, the guest or the tools are not there or do not fit.
    """
    from pvops_core.livepatch.guest import build_id_of  # noqa: PLC0415
    from pvops_core.livepatch.payload.compiling import build_payload, expecting, located, parse_replacement, size_in  # noqa: PLC0415 - heavy

    image, kind = _image(layout, kernel)
    replacements = expecting([parse_replacement(text) for text in function or ()], expect or ())
    replacements = [located(image, each) for each in replacements]
    sizes = {each.old: size_in(image, each.old) for each in replacements}
    host = build_id_of(image)
    with progress(f"building {source.name}"):
        ids = {"depends": _hex(depends) or host, "host": None if no_host_id else host}
        data = build_payload(source, replacements, sizes, kind, **ids)  # type: ignore[arg-type]
    write_file(output, data)
    write_json("livepatch", _describe(str(output), data, kind), json)
    if json != STDOUT:
        sys.stdout.write(f"{output}: {len(data)} bytes, {len(replacements)} functions\n")
    return ExitCode.FINE


@livepatch.command()
def show(
    payload: Annotated[Path, typer.Argument(metavar="PAYLOAD", help="Payload file.")],
    *,
    layout: LayoutOption = "6.1-64",
    json: JsonOption = None,
) -> int:
    """List the sections of a payload.

    Exit code: 0 told, 2 it is none.
    """
    _, kind = _image(layout, None)
    told = _describe(str(payload), read_file(str(payload)), kind)
    write_json("livepatch", told, json)
    if json != STDOUT:
        print_table(("section", "bytes"), [(name, size) for name, size in told.payload.sections.items()])
    return ExitCode.FINE


@livepatch.command()
def run(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="File of timed commands; - is standard input.")],
    *,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Backend to run on.")] = "native",
    layout: LayoutOption = "6.1-64",
    cmdline: Annotated[str, typer.Option(metavar="TEXT", help="Command line of the guest.")] = "",
    cpus: runoptions.CpusOption = 1,
    seed: runoptions.SeedOption = 0,
    memory: runoptions.MemoryOption = runoptions.DEFAULT_MEMORY,
    max_seconds: runoptions.MaxSecondsOption = runoptions.DEFAULT_MAX_SECONDS,
    settings: runoptions.SetOption = None,
    json: JsonOption = None,
    plugin: PluginOption = None,
) -> int:
    """Patch the running guest at given times.

    Each line of the script is a virtual time and a command: upload, apply, revert, replace, unload, load or list.

    Exit code: 0 every command succeeded, 1 one failed, 2 one should be tried again (or bad usage), 4 pvops or a
    plugin failed, 6 the guest crashed or timed out.
    """
    from msgspec.structs import asdict  # noqa: PLC0415

    from pvops_core.livepatch.builtin import WORD, live_patches  # noqa: PLC0415 - heavy
    from pvops_core.livepatch.control.findings import LivepatchRun  # noqa: PLC0415
    from pvops_core.livepatch.control.report import LivepatchReport  # noqa: PLC0415
    from pvops_core.livepatch.control.script import Script, read_script  # noqa: PLC0415
    from pvops_core.livepatch.control.tool import Tool  # noqa: PLC0415
    from pvops_core.runs.plan import choose  # noqa: PLC0415
    from pvops_core.session import Session  # noqa: PLC0415

    plugins = tuple(plugin or ())
    loaded = runoptions.load(plugins)
    if runoptions.are_broken(loaded, plugins, backend):
        return ExitCode.FAULT
    backends = loaded.backends
    text = sys.stderr if json == STDOUT else sys.stdout
    (name,) = choose("backend", [backend], list(backends))
    options = choices_for([name], parse_choices(settings or ()), backends)[name]
    steps = read_script(read_file(script).decode("utf-8", "replace"), script)  # last: it may be typed
    with Session.of_builtin(
        layout,
        name,
        backends=backends,
        cmdline=f"{cmdline} {WORD}".strip(),
        vcpus=cpus,
        seed=seed,
        memory=memory << 20,
        options=options,
    ) as session:
        patches = live_patches(session)

        def show(line: str) -> None:
            text.write(f"{printable(line)}\n")

        report = LivepatchReport(patches, show)
        tool = Tool(patches, read_file, report.say)
        driver = Script(session.machine, tool, steps, report.step, session.platform.console)
        driver.start()
        stop = _run(session, max_seconds)
        text.write(session.platform.console.decode("utf-8", "replace"))
        for line in patches.messages:
            text.write(f"{printable(line)}\n")
        result = LivepatchRun(
            **asdict(report.found(driver)),
            outcome=stop.reason,
            reason=stop.detail,
            event_log_sha256=session.machine.log.sha256,
            text_sha256=session.text_sha256(),
        )
    write_json("livepatch", result, json)
    text.write(f"outcome {stop.reason}{': ' + printable(stop.detail) if stop.detail else ''}\n")
    for line in result.not_done:
        text.write(f"not done: {line}\n")
    if stop.reason != "poweroff":
        return ExitCode.CRASH
    return result.exit_code


def _run(session: Session, max_seconds: float) -> Stop:
    """Run to the guest's end, looking at the clock on the wall now and then."""
    until = monotonic() + max_seconds
    while (stop := session.run(max_ns=_CHUNK_NS)).reason == "timeout" and monotonic() < until:
        pass
    return stop


def _image(layout: str, kernel: Path | None) -> tuple[KernelImage, MachineKind]:
    from pvops_core.guests import builtin_guest  # noqa: PLC0415 - heavy
    from pvops_core.images import load_image  # noqa: PLC0415
    from pvops_core.kinds import MachineKind  # noqa: PLC0415

    if kernel is None:
        guest = builtin_guest(layout)
        return guest.image, guest.kind
    image = load_image(kernel)
    return image, MachineKind.X86_64 if image.pointer_size == 8 else MachineKind.PAE


def _hex(text: str | None) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError as error:
        raise UsageError(f"build-id {text!r} is not hexadecimal") from error


def _describe(path: str, data: bytes, kind: MachineKind) -> PayloadShown:
    from pvops_core.livepatch.control.findings import PayloadContents, PayloadShown  # noqa: PLC0415 - heavy
    from pvops_core.livepatch.payload.objects import read_object  # noqa: PLC0415 - heavy

    item = read_object(data, path, kind)
    return PayloadShown(
        PayloadContents(
            sections={section.name: section.size for section in item.sections if section.loaded},
            symbols={symbol.name: symbol.size for symbol in item.symbols if symbol.name and symbol.section},
        )
    )
