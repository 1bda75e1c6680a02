"""Run programs on another model of a processor and keep what came of them; see README.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.machine.independent.batches import chosen, run
from tests.machine.independent.emulators import EMULATORS
from tests.machine.independent.results import KEPT, document


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processor", choices=sorted(EMULATORS), default="bochs")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=KEPT)
    options = parser.parse_args()
    programs = chosen(options.count, options.seed)
    text = document(options.processor, programs, run(EMULATORS[options.processor], programs))
    options.output.write_text(text, encoding="utf-8")


main()
