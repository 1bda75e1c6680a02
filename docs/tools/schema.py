"""The schema of a run, of what ``Observation`` declares and of what is written in it by hand.

``python docs/tools/schema.py [FILE]`` writes it to a file, or to standard output.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pvops_core.runs.described import placed, properties
from pvops_core.runs.observation import Observation

SCHEMA: Final = Path(__file__).parents[2] / "schema" / "pvops.run-1.json"


def schema() -> str:
    """The schema as JSON."""
    document = json.loads(SCHEMA.read_text(encoding="utf-8"))
    run = document["$defs"]["run"]
    run["properties"] = properties(Observation, run["properties"])
    run["required"] = [*dict.fromkeys((*run["required"], *(place[0] for _, place in placed(Observation))))]
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        Path(sys.argv[1]).write_text(schema(), encoding="utf-8")
    else:
        sys.stdout.write(schema())
