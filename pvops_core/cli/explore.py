"""``pvops run --explore``: the same run under many schedules."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from pvops_core.cli.common import STDOUT, ExitCode, write_json
from pvops_core.compare.exploring import Exploration, deviation, first_deviation, told
from pvops_core.errors import UsageError, printable
from pvops_core.runs.cellrun import WARM
from pvops_core.runs.observation import Outcome
from pvops_core.runs.pool import execute
from pvops_core.runs.progress import ProgressListener
from pvops_core.runs.worker.events import read_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pvops_core.child.limits import Limits
    from pvops_core.machine.run.eventlog import Event
    from pvops_core.runs.observation import Observation
    from pvops_core.runs.wire import Request


def explore(request: Request, count: int, limits: Limits, json: str | None) -> int:
    """Run so many seeds from the request's on; tell of the first with another result.

    The request's event log, if one is wanted, is written for the two runs that are held against each other, to its
    name with the seed behind it.

    Raises:
        UsageError: there is but one schedule, or the backend cannot be what is asked for.
    """
    if request.cell.vcpus < 2:
        raise UsageError("--explore tries schedules, and one CPU has but one: say --cpus 2 or more")
    with ProgressListener(count) as listener:

        def make(requests: Sequence[Request]) -> Sequence[Observation]:
            return execute(requests, listener=listener, limits=limits, command=WARM, stays=True)

        quiet = replace(request, events=None)
        reference, explored, other = first_deviation(quiet, count, make)
    if reference.outcome is Outcome.UNSUPPORTED:
        raise UsageError(reference.reason)
    with tempfile.TemporaryDirectory() as folder:
        log = request.events or str(Path(folder, "events"))

        def logs(run: Request) -> Iterator[Event]:
            path = f"{log}.{run.cell.seed}"
            with ProgressListener(1) as again:
                execute([replace(run, events=path)], listener=again, limits=limits)
            return read_events(path)

        found = deviation(quiet, reference, other, logs) if other else None
    exploration = Exploration(explored, count, found, reference)
    write_json("explore", exploration, json)
    text = sys.stderr if json == STDOUT else sys.stdout
    text.writelines(f"{printable(line)}\n" for line in told(exploration))
    return ExitCode.DIFFERENCE if found else reference.outcome.exit_code
