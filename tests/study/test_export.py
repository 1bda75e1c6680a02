from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pytest

from pvops_core.records import document
from pvops_core.runs.observation import Outcome
from pvops_core.study.export import csv_text, parquet_bytes
from pvops_core.study.rows import Row, columns

MakeRow = Callable[..., Row]


@pytest.fixture
def rows(make_row: MakeRow) -> list[Row]:
    lost = make_row("xen", seed=1, outcome=Outcome.TIMEOUT, reason='no "end", ä', sites={})
    return [make_row(virtual_ns=1 << 60), lost]


def test_csv_has_every_column(rows: list[Row]) -> None:
    found = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert found[1]["reason"] == 'no "end", ä'
    assert found[1]["inlined"] == ""
    assert list(found[0]) == [name for name, _type in columns(Row)]


def test_parquet_has_the_columns_with_their_types(rows: list[Row]) -> None:
    polars = pytest.importorskip("polars")
    found = polars.read_parquet(io.BytesIO(parquet_bytes(rows)))
    assert found.to_dicts() == [document(row) for row in rows]
    types = {"TEXT": polars.String, "INTEGER": polars.Int64, "REAL": polars.Float64}
    assert dict(found.schema) == {name: types[kind] for name, kind in columns(Row)}
    assert found["inlined"].null_count() == 1


def test_parquet_of_nothing_has_the_columns_too() -> None:
    polars = pytest.importorskip("polars")
    assert polars.read_parquet(io.BytesIO(parquet_bytes([]))).shape == (0, len(dict(columns(Row))))
