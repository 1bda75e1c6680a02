"""A study's rows as a file for other tools."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Final

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


_PARQUET: Final = {"TEXT": "String", "INTEGER": "Int64", "REAL": "Float64"}
"""Polars' type of each of SQLite's."""


def parquet_bytes(rows: Sequence[Row]) -> bytes:
    """The rows as Parquet; what was not counted is null. Needs polars (`pvops-core[parquet]`)."""
    import polars as pl  # noqa: PLC0415 - where it is installed, and seldom

    schema = {name: getattr(pl, _PARQUET[kind]) for name, kind in columns(Row)}
    out = io.BytesIO()
    pl.DataFrame([document(row) for row in rows], schema=schema).write_parquet(out)
    return out.getvalue()
