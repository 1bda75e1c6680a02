"""A performance as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pvops_core.scenarios.acts import Act
    from pvops_core.scenarios.model import Performance


def scenario_document(performance: Performance) -> dict[str, Any]:
    """What ``pvops.scenario/1`` holds beside its schema name."""
    return {
        "scenario": performance.name,
        "summary": performance.summary,
        "seed": performance.seed,
        "kernel": dict(performance.guest) or None,
        "commits": [{"id": each.id, "when": each.when, "what": each.what} for each in performance.commits],
        "acts": [_act(act) for act in performance.acts],
        "honest": performance.honest,
    }


def _act(act: Act) -> dict[str, Any]:
    return {
        "role": act.role.value,
        "title": act.title,
        "ending": act.ending,
        "held": act.held,
        "checks": [{"claim": check.claim, "held": check.held} for check in act.checks],
        "story": list(act.story),
        "facts": dict(act.facts),
        "listings": [{"title": each.title, "lines": list(each.lines)} for each in act.listings],
    }
