"""Kernels damaged where it says something: headers, tables, notes, streams; and streams that unpack without end."""

from __future__ import annotations

import random
import time
from typing import Final

from pvops_native.kernel import NativeKernel
from pvops_xen.domain.notes import read_notes

from pvops_core.errors import ImageError
from pvops_core.images import load_image
from pvops_core.patching.altinstructions.alternatives import ALWAYS
from pvops_core.patching.altinstructions.whole import plan_alternatives
from pvops_core.patching.kernel import patched_image, plan_kernel, read_kernel
from pvops_core.testing.images import make_bzimage, wrap_payload
from soak.damage import bombs, fields, packed
from soak.tally import Tally, kernels
from tests.patching import test_hostile

SMALL: Final = 150
"""Of kernels of some pages, which have all that is read, in a round."""
REAL: Final = 4
MOST_S: Final = 2.0
MOST_BYTES: Final = 256 << 20


def play(seed: int) -> Tally:
    """Some of each: small ELF files, those packed in every format, real kernels, bombs."""
    chance, tally = random.Random(f"images {seed}"), Tally()
    good = test_hostile.GOOD
    for _ in range(SMALL):
        name = chance.choice(sorted(good))
        raw = good[name]
        match chance.randrange(4):
            case 0:
                raw, kind = test_hostile.mutant(raw, chance), "tables"
            case 1:
                raw, kind = fields.elf(raw, chance), "headers"
            case 2:
                raw, kind = fields.boot(make_bzimage(raw, "gzip"), chance), "boot header"
            case _:
                format_ = chance.choice(sorted(packed.PACKERS))
                raw, kind = wrap_payload(fields.stream(packed.PACKERS[format_](raw), chance)), f"stream of {format_}"
        _read(raw, kind, tally)
    for format_, bomb in bombs.some(chance):
        _read(bomb, f"bomb of {format_}", tally)
    real = sorted(kernels().items())
    for number in range(REAL if real else 0):
        path = real[(seed + number) % len(real)][1]
        raw = path.read_bytes()
        if chance.randrange(2):
            raw, kind = fields.boot(raw, chance), "real bzImage"
        else:
            raw, kind = fields.elf(bytes(load_image(raw, path.name).data), chance), "real vmlinux"
        _read(raw, kind, tally, real=True)
    return tally


def _read(raw: bytes, kind: str, tally: Tally, *, real: bool = False) -> None:
    """Read an image to the end: it is taken or refused, in time and memory."""
    before, begin = test_hostile.resident(), time.process_time()
    outcome = ""
    try:
        if real:
            image = load_image(raw, "hostile")
            read_notes(image)
            plan = plan_kernel(read_kernel(image), [NativeKernel()], 2)
            patched_image(plan, plan_alternatives(plan, frozenset({ALWAYS})).groups)
        else:
            test_hostile.to_the_end(raw)
    except ImageError as error:
        outcome = "" if error.path and error.field else f"{error!r} does not say where"
    except AssertionError:
        outcome = "an error that does not say where, or took too long"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        outcome = f"{type(error).__name__}: {error}"
    took, grown = time.process_time() - begin, test_hostile.resident() - before
    if took > MOST_S * (4 if real else 1):  # a sound one of thirty megabytes takes more than a second
        outcome = outcome or f"took {took:.1f} s"
    if grown > MOST_BYTES:
        outcome = outcome or f"grew by {grown >> 20} MiB"
    tally.count += 1
    tally.notes[kind.partition(" of ")[0]] += 1
    if outcome:
        tally.wrong.append(f"image {tally.count}, {kind}: {outcome}")
