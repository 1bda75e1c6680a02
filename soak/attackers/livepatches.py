"""Random commands to the registry of live patches, against the tests' model of its states."""

from __future__ import annotations

from typing import Any, Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from soak.tally import Tally
from tests.livepatch.control.test_registry import Machine

RUNS: Final = 150
STEPS: Final = 60


def play(number: int) -> Tally:
    """Some runs of the state machine."""
    tally = Tally()

    class CountedMachine(Machine):
        """Counts its steps."""

        def __init__(self) -> None:
            super().__init__()
            tally.notes["runs"] += 1

        def attempt(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - the model's
            tally.count += 1
            return super().attempt(*arguments, **named)

    quiet = settings(
        max_examples=RUNS, stateful_step_count=STEPS, deadline=None, database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    try:
        run_state_machine_as_test(seed(number)(CountedMachine), settings=quiet)
    except Exception as error:  # noqa: BLE001 - whatever the model does not know
        tally.wrong.append(f"{type(error).__name__}: {error}")
    return tally
