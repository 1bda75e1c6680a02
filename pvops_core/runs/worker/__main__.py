"""Where a worker begins: ``python -m pvops_core.runs.worker once`` or ``warm``, as the modules of these names say."""

import gc
import sys
from importlib import import_module

from pvops_core.__main__ import COLLECT_EVERY

gc.set_threshold(COLLECT_EVERY)
gc.disable()  # until the run begins: importing and making a session make many objects and no garbage
import_module(f"pvops_core.runs.worker.{sys.argv[1]}").main()
