"""What is told of a study, read from its folder alone: nothing is loaded, planned or run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from pvops_core.runs.plan import Skipped
from pvops_core.study.answers import Answers
from pvops_core.study.document import StudyResult, study_result
from pvops_core.study.export import csv_text, parquet_bytes
from pvops_core.study.replay import replay

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.study.rows import Row
    from pvops_core.study.store import Store


@attrs.frozen
class StudyReport:
    """A folder's answers, and the ways to write them.

    Attributes:
        answers: what the study came to.
        store: the folder, open.
        meta: what it says of the study.
    """

    answers: Answers
    store: Store
    meta: Mapping[str, object]

    def replay(self, row: Row) -> str:
        """The command that makes a row's run again."""
        cell = self.store.observation(row.measured.key).cell
        plugins = msgspec.convert(self.meta.get("plugins", ()), tuple[str, ...])
        return replay(cell, row.axes, plugins, str(self.meta.get("until", "")), str(self.meta.get("stop_at", "")))

    def document(self) -> StudyResult:
        """As JSON."""
        skipped = msgspec.convert(self.meta.get("skipped", ()), tuple[Skipped, ...])
        return study_result(self.answers, str(self.meta.get("name", "")), skipped, self.replay)

    def csv(self) -> str:
        """As CSV."""
        return csv_text(self.answers.rows)

    def parquet(self) -> bytes:
        """As Parquet."""
        return parquet_bytes(self.answers.rows)


def told(store: Store) -> StudyReport:
    """What a folder tells."""
    meta = store.meta()
    return StudyReport(Answers(store.rows(), str(meta.get("reference", "")), len(store.planned())), store, meta)
