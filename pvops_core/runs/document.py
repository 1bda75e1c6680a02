"""The JSON of a run, without the schema's name.

docs/reference/json.md describes every field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvops_core.runs.observation import Observation


def run_document(observation: Observation) -> dict[str, Any]:
    """``pvops.run/1``: one run, a cell with its observation, flat, counters together under ``counts``."""
    return observation.cell.to_json() | {
        "outcome": observation.outcome.value,
        "reason": observation.reason,
        "detail": observation.detail,
        "messages": list(observation.messages),
        "results": observation.results,
        "console": observation.console,
        "counts": {
            "ops": observation.op_calls,
            "own": observation.own_calls,
            "hypercalls": observation.hypercalls,
            "traps": observation.traps,
            "page_table_updates": observation.page_table_updates,
            "flushes": observation.flushes,
            "switches": observation.switches,
            "machine": observation.counts,
            "guest": observation.guest_counts,
        },
        "own": observation.own,
        "switch_log": list(observation.switch_log),
        "switch_orders": list(observation.switch_orders),
        "sites": observation.sites_by_form,
        "sites_by_op": observation.sites,
        "sites_note": observation.sites_note,
        "points": observation.points,
        "inside": observation.inside,
        "livepatch": observation.livepatch,
        "vcpus_started": observation.vcpus_started,
        "instructions": observation.instructions,
        "virtual_ns": observation.virtual_ns,
        "wall_s": round(observation.wall_s, 3),
        "event_log_sha256": observation.event_log_sha256,
        "text_sha256": observation.text_sha256,
        "versions": observation.versions,
    }
