"""``python -m pvops_core`` is ``pvops``, and the installed command begins here too."""

from __future__ import annotations

import gc
import sys

INTERRUPTED = 6
"""``ExitCode.CRASH``, before the module that has it could be imported."""
COLLECT_EVERY = 150_000
"""Objects made before garbage is looked for: importing makes many and no garbage. Python's 700 cost 25 ms."""


def main() -> int:
    """Run the command line; Ctrl-C while that is still being imported ends it as it does later on."""
    gc.set_threshold(COLLECT_EVERY)
    try:
        from pvops_core.cli import main as run  # noqa: PLC0415 - so that Ctrl-C meets us

        return run()
    except KeyboardInterrupt:
        sys.stderr.write("pvops: interrupted\n")
        return INTERRUPTED
    finally:
        gc.freeze()  # else Python looks through all there is before it frees it


if __name__ == "__main__":
    sys.exit(main())
