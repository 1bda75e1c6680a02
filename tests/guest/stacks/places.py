"""Where the kernel of tests has its text, its stacks and who sleeps on them."""

from __future__ import annotations

import numpy as np

from pvops_core.guest.stacks.spans import Spans
from tests.machine.conftest import CODE

STACK, END, OTHER, ASLEEP = 0x50000, 0x54000, 0x58F00, 0x60000
SITE = CODE + 0x80
SPANS = Spans(np.array([[SITE, SITE + 6]], dtype=np.uint64))
RETURN = SITE + 5
