"""The JSON of a comparison, without the schema's name.

docs/reference/json.md describes every field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from pvops_core.compare.bootdiff import boot_differences
from pvops_core.runs.document import run_document

if TYPE_CHECKING:
    from pvops_core.compare.bootdiff import BootDifference
    from pvops_core.compare.comparison import Choice, Comparison, GroupResult


def compare_document(comparison: Comparison) -> dict[str, Any]:
    """``pvops.compare/1``: all runs, what they had in common, and where they differ."""
    return {
        "equal": comparison.equal,
        "verdict": comparison.verdict,
        "exit_code": comparison.exit_code,
        "command": comparison.command,
        "groups": [_group(group, comparison.choice) for group in comparison.groups],
        "cells": [run_document(observation) for observation in comparison.observations],
        "skipped": [attrs.asdict(skipped) for skipped in comparison.skipped],
        "plugin_errors": [error.to_json() for error in comparison.plugin_errors],
    }


def _group(group: GroupResult, choice: Choice) -> dict[str, Any]:
    return attrs.asdict(group.group) | {
        "kind": group.group.kind.value,
        "equal": group.equal,
        "backends": [observation.cell.backend for observation in group.observations],
        "reference": group.reference.cell.backend,
        "differences": [attrs.asdict(difference) for difference in group.differences],
        **({"boots": [_boot(each, choice) for each in boot_differences(group)]} if group.group.of_kernel else {}),
    }


def _boot(difference: BootDifference, choice: Choice) -> dict[str, Any]:
    by_op = difference.by_op
    return {
        "reference": difference.reference.cell.backend,
        "backend": difference.other.cell.backend,
        "sites": difference.compared,
        "sites_differing": len(difference.sites),
        "sites_by_op": {
            op: {"sites": number, "differing": by_op[op]}
            for op, number in difference.shared.items()
            if choice.wants(op)
        },
        "differing": [attrs.asdict(site) for site in difference.sites if choice.wants(site.op)],
        "console": [[pair.left, pair.right] for pair in difference.unlike],
        "console_alike": len(difference.lines) - len(difference.unlike),
    }
