"""How to write a command again that made runs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping


def again(verb: str, options: Mapping[str, object], *arguments: str) -> str:
    """The command that makes the same runs again, on one line; options without a value are left out."""
    words = ["pvops", verb, *arguments]
    for name, value in options.items():
        values = value if isinstance(value, tuple) else (value,)
        for each in values:
            if each not in {None, ""}:
                words += [f"--{name}", str(each)]
    return shlex.join(words)
