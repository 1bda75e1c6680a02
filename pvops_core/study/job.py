"""A study that can be carried out: what it asks for, the text that says so, and where its paths begin."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
from msgspec.structs import asdict

from pvops_core.records import document
from pvops_core.study.errors import StoreError, StudyError
from pvops_core.study.plan import StudyPlan, plan_study, plugin_paths
from pvops_core.study.spec import StudySpec, line_of, parse_spec, read_spec

if TYPE_CHECKING:
    from pvops_core.backends import Loaded

SCHEMA: Final = "pvops.study-results/1"


@attrs.frozen
class Job:
    """A study, and where it comes from.

    Attributes:
        spec: what is asked for.
        text: of the file; empty for a study by options.
        file: the file.
        folder: what its paths begin at.
    """

    spec: StudySpec
    text: str
    file: str
    folder: Path

    @classmethod
    def of_meta(cls, meta: Mapping[str, Any]) -> Job:
        """The study that a folder of results is of, as it was when it was run last.

        Raises:
            StoreError: the folder does not say it.
        """
        try:
            text, file, folder = meta["text"], meta["file"], meta["folder"]
        except KeyError as missing:
            raise StoreError(f"does not say what study it is of: no {missing}") from missing
        return cls(parse_spec(text, file), text, file, Path(folder))

    @classmethod
    def of_spec(cls, spec: StudySpec, folder: Path) -> Job:
        """A study by options, with the text that its file would have: strings and lists of JSON are TOML's too.

        Args:
            spec: what is asked for; no rules and no tables are in it.
            folder: what its paths begin at.
        """
        given = {name: value for name, value in asdict(spec).items() if value not in {(), ""}}
        text = "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in given.items())
        return cls(spec, text, "", folder)

    @property
    def name(self) -> str:
        """Title of its reports."""
        return self.spec.name or Path(self.file).stem

    @property
    def plugins(self) -> tuple[str, ...]:
        """Its plugins, as ``--plugin`` takes them."""
        return tuple(plugin_paths(self.spec, self.folder))

    def plan(self, loaded: Loaded) -> StudyPlan:
        """Its cells; StudyError, with the line, for what does not exist or does not fit together."""
        try:
            return plan_study(self.spec, loaded, self.folder)
        except StudyError as error:
            raise attrs.evolve(error, path=self.file, line=line_of(self.text, error.key)) from error

    def meta(self, plan: StudyPlan) -> dict[str, object]:
        """What a folder of results says of it."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "text": self.text,
            "file": self.file,
            "folder": str(self.folder),
            "reference": plan.reference,
            "skipped": document(plan.skipped),
            "plugins": self.plugins,
            "until": self.spec.until,
            "stop_at": self.spec.stop_at,
            "pvops": metadata.version("pvops-core"),
        }


def read_job(file: Path) -> Job:
    """The study of a file.

    Raises:
        StudyError: it cannot be read, is no TOML, or says what no study has.
    """
    spec, text = read_spec(file)
    return Job(spec, text, str(file), file.absolute().parent)
