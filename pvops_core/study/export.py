"""A study's rows as a file for other tools."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from pvops_core.records import document
from pvops_core.study.rows import Row, columns

if TYPE_CHECKING:
    from collections.abc import Sequence


def csv_text(rows: Sequence[Row]) -> str:
    """The rows with a head; what was not counted is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [name for name, _type in columns(Row)])
    writer.writeheader()
    writer.writerows(document(row) for row in rows)
    return out.getvalue()
