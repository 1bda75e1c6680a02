"""``python -m pvops_core`` is ``pvops``."""

import sys

from pvops_core.cli import main

if __name__ == "__main__":
    sys.exit(main())
