"""``--record`` and ``--replay``: what is typed at a guest is kept with its virtual time, and typed again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import attrs
import typer
from msgspec.structs import replace

from pvops_core.backends.keyboard import Stroke
from pvops_core.cli.common import ExitCode, write_file
from pvops_core.errors import UsageError, printable

if TYPE_CHECKING:
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.typescript import Typescript
    from pvops_core.runs.wire import Progress, Request, WorkerPhase

RecordOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a typescript: what is typed at the console and when, in virtual time, with all that decides the "
        "run besides.",
    ),
]
ReplayOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Make the run of a typescript again, the event log the same. Backend, kernel, ramdisk, command line, "
        "settings, CPUs, memory, seed, --ops, --hook, --switch, --until and --stop-at are those of the file; a KERNEL "
        "or --initrd says where they are now, and other places to end at, hooks and --trace may be given.",
    ),
]


def hash_of(initrd: str) -> str:
    """Of a ramdisk's file; empty for none.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(initrd).read_bytes()).hexdigest() if initrd else ""
    except (OSError, ValueError) as failure:
        raise UsageError(f"{initrd}: cannot be read: {getattr(failure, 'strerror', None) or failure}") from failure


@attrs.define
class Recorder:
    """Keeps what a run takes of what is typed.

    Attributes:
        file: the typescript's.
        initrd: hash of the ramdisk, as it is before the run.
    """

    file: Path
    initrd: str
    _strokes: list[Stroke] = attrs.field(factory=list, init=False)

    @classmethod
    def of(cls, file: Path | None, initrd: str) -> Recorder | None:
        """One for a file, if there is to be one; UsageError if the ramdisk cannot be read."""
        return cls(file, hash_of(initrd)) if file is not None else None

    def told(self, what: WorkerPhase | Progress | Stroke) -> None:
        """Keep a stroke."""
        if isinstance(what, Stroke):
            self._strokes.append(what)

    def write(self, request: Request, observation: Observation, kernel: str) -> None:
        """Write the typescript of the run, with the hash of its kernel.

        Raises:
            UsageError: it cannot be written.
        """
        from pvops_core.runs.typescript import of_run, packed  # noqa: PLC0415 - seldom wanted

        script = of_run(
            observation,
            self._strokes,
            kernel=kernel,
            initrd=self.initrd,
            ops=request.inside.ops,
            hooks=request.inside.hooks,
            switches=request.switches,
            until=request.until,
            stop_at=request.stop_at,
        )
        write_file(self.file, packed(script))


@attrs.frozen
class Replayed:
    """A run that is to be made again.

    Attributes:
        file: its typescript's.
        script: what that says.
    """

    file: Path
    script: Typescript

    @classmethod
    def read(cls, file: Path, kernel: Path | None, initrd: str, given: Mapping[str, tuple[object, object]]) -> Replayed:
        """A typescript that is of the kernel and ramdisk that there are now.

        Args:
            file: the typescript's.
            kernel: where its kernel is now; None for where it was.
            initrd: the same of its ramdisk; empty for where it was.
            given: by option, what was given of what the file says, and what it is if nothing was.

        Raises:
            UsageError: something was given that the file says, or a file cannot be read.
            ImageError: it is no typescript, or of another kernel, or damaged.
        """
        from pvops_core.images import load_image  # noqa: PLC0415 - heavy
        from pvops_core.runs.typescript import read_typescript  # noqa: PLC0415

        for option, (value, default) in given.items():
            if value != default:
                raise UsageError(f"--replay makes the run that the file says: --{option} cannot be given with it")
        script = read_typescript(file)
        cell = replace(script.cell, guest=str(kernel or script.cell.guest), initrd=initrd or script.cell.initrd)
        script.check(load_image(cell.guest).sha256, hash_of(cell.initrd), file)
        return cls(file, replace(script, cell=cell))

    def request(self, request: Request) -> Request:
        """The request for the run, of one that has what was given besides."""
        script, inside = self.script, request.inside
        return replace(
            request,
            typed=b"",
            replayed=script.strokes,
            max_ns=script.max_ns,
            until=request.until or ("" if request.stop_at else script.until),
            stop_at=request.stop_at or ("" if request.until else script.stop_at),
            switches=(*script.switches, *request.switches),
            inside=replace(inside, ops=script.ops, hooks=(*script.hooks, *inside.hooks)),
        )

    def same(self, made: Request, observation: Observation) -> bool | None:
        """Whether it was the same run; None if it was to be another, or the recorded one's end is not known."""
        script = self.script
        asked = (made.until, made.stop_at, made.switches, made.inside.hooks)
        if not script.event_log_sha256 or asked != (script.until, script.stop_at, script.switches, script.hooks):
            return None
        return observation.event_log_sha256 == script.event_log_sha256

    def line(self, observation: Observation, *, same: bool | None) -> str:
        """What to say of it, for a person."""
        if same is None:
            return "replay              of another run than the recorded one, as asked"
        if same:
            return "replay              the same run: its event log is the recorded one"
        versions = {name: (old, observation.versions.get(name, "")) for name, old in self.script.versions.items()}
        others = "; ".join(f"{name} was {old} and is {new}" for name, (old, new) in versions.items() if old != new)
        recorded = f"event_log_sha256 was {self.script.event_log_sha256}, and is {observation.event_log_sha256}"
        return f"replay              another run: {recorded}{others and f' ({others})'}"


@attrs.frozen
class Typescripts:
    """What a command line says of typescripts.

    Attributes:
        recorder: keeps what is typed, if that is wanted.
        replayed: the run that is to be made again, if one is.
    """

    recorder: Recorder | None = None
    replayed: Replayed | None = None

    @staticmethod
    def check(record: Path | None, replay: Path | None, unknown: Mapping[str, object]) -> None:
        """Refuse what a typescript does not know of.

        Raises:
            UsageError: it was given with one.
        """
        for option, file in (("record", record), ("replay", replay)):
            for other, value in unknown.items():
                if file is not None and value:
                    raise UsageError(f"--{option} and --{other} cannot be given together")

    @property
    def recorders(self) -> tuple[Recorder, ...]:
        """Who is to be told of strokes."""
        return () if self.recorder is None else (self.recorder,)

    def request(self, request: Request) -> Request:
        """The request for the run, of one that has what else was given."""
        return request if self.replayed is None else self.replayed.request(request)

    def judge(self, request: Request, observation: Observation, text: TextIO) -> ExitCode:
        """Say whether a run that was made again was the same; another is a difference."""
        if self.replayed is None:
            return ExitCode.FINE
        same = self.replayed.same(request, observation)
        text.write(f"{printable(self.replayed.line(observation, same=same))}\n")
        return ExitCode.DIFFERENCE if same is False else ExitCode.FINE
