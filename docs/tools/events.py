"""The page of the event log, of what the modules that record events declare.

``python docs/tools/events.py > docs/reference/events.md``
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import Final

from pvops_core.machine.run.eventkinds import KINDS, EventKind

DISTRIBUTIONS: Final = ("pvops_core", "pvops_native", "pvops_xen", "pvops_lguest")
HEAD: Final = """# The event log

What happens in a run, in order, each event stamped with virtual time. Made by `make reference` of the declarations
(`pvops_core.machine.event_kind`), each beside the code that records it. `--events FILE` of `pvops run` and `pvops boot`
writes it, one JSON object a line:

| member | type | meaning |
|---|---|---|
| `ns` | int | virtual time in nanoseconds |
| `kind` | str | what happened: one of those below |
| `vcpu` | int or null | the virtual CPU that it happened on, if on one |
| `fields` | object | its particulars; bytes as hexadecimal digits |

`pvops_core.runs.worker.events.read_events(path)` gives the events of such a file back, and says of a line that is none
where it stands.

`event_log_sha256` in a run's JSON is the hash over all of them. An event is written as its time, its kind, its vCPU (-1
for none), and name and value of each field in the order of names: numbers as `5;`, text as `s3:abc`, bytes as `b2:` and
the two, all with their length in bytes, and a line feed at the end. 8192 events make a pack, and the link of a pack is
the SHA-256 of the link before it (32 zeros before the first) and its bytes; the hash is the link of what is left over
at the end, be it nothing.
"""


def page() -> str:
    """The page as Markdown."""
    for name in DISTRIBUTIONS:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith("__main__") and ".templates" not in module.name:
                importlib.import_module(module.name)
    parts = [HEAD]
    for name in DISTRIBUTIONS:
        kinds = [kind for kind in KINDS.values() if kind.owner.split(".")[0] == name]
        parts.append(f"\n## {name.replace('_', '-')}\n" if kinds else "")
        parts += map(_section, sorted(kinds, key=lambda kind: (kind.name, kind.owner)))
    return "".join(parts)


def _section(kind: EventKind) -> str:
    rows = [text.partition(": ") for text in kind.fields.values()]
    fields = "".join(f"| `{field}` | {row[0]} | {row[2]} |\n" for field, row in zip(kind.fields, rows, strict=True))
    table = f"\n| field | type | meaning |\n|---|---|---|\n{fields}" if fields else ""
    return f"\n### {kind.name}\n\n{kind.when} Recorded by `{kind.owner}`.\n{table}"


if __name__ == "__main__":
    sys.stdout.write(page())
