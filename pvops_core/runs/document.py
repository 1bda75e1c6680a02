"""The JSON of a run, without the schema's name; ``Observation`` says what each field is and where it stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pvops_core.runs.described import document

if TYPE_CHECKING:
    from pvops_core.runs.observation import Observation


def run_document(observation: Observation) -> dict[str, Any]:
    """``pvops.run/1``: one run, a cell with its observation, flat, counters together under ``counts``."""
    return (
        observation.cell.to_json()
        | document(observation)
        | {
            "outcome": observation.outcome.value,
            "sites": observation.sites_by_form,
            "wall_s": round(observation.wall_s, 3),
        }
    )
