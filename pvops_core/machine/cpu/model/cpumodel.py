"""Models of processors: which of the engine's features cpuid shows.

A model is a name and changes to it, as QEMU's ``-cpu`` has them: ``max``, ``x86-64-v2,-popcnt``, ``min,+sse3``,
``max,vendor=AuthenticAMD,family=15``.
"""

from __future__ import annotations

import difflib
from typing import Final

from pvops_core.machine.cpu.model.features import ENGINE
from pvops_core.machine.cpu.model.identity import INTEL, MOST, CpuIdentity

MAX: Final = "max"
_MIN: Final = frozenset(
    {"fpu", "pse", "msr", "pae", "cx8", "pge", "cmov", "fxsr", "sse", "sse2", "syscall", "lm", "tsc"}
)
_V1: Final = _MIN | {"de", "sep", "pat", "clflush", "mmx", "nx"}
_V2: Final = _V1 | {"cx16", "lahf", "popcnt", "sse3", "ssse3", "sse4_1", "sse4_2"}
MODELS: Final = {
    MAX: ENGINE,
    "min": _MIN | {"hypervisor"},
    "x86-64-v1": _V1 | {"hypervisor"},
    "x86-64-v2": _V2 | {"hypervisor"},
}
"""Model -> its features. ``max``: all that the engine does. ``min``: those without which a 64-bit kernel refuses to
start (arch/x86/include/asm/required-features.h), and the time-stamp counter: without one a PV guest's KASLR waits for a
timer that is not there (arch/x86/lib/kaslr.c). ``x86-64-v1`` and ``x86-64-v2``: the levels of the System V ABI's
supplement for AMD64, section 3.1.1, with what the first processors of that kind had besides (AMD APM volume 3,
appendix D). Each says that there is a hypervisor. Narrower machines show fewer (``cpuid``)."""
_BEYOND: Final = {
    "x86-64-v3": "avx avx2 bmi1 bmi2 f16c fma lzcnt movbe osxsave",
    "x86-64-v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}
"""Levels that are known but beyond the engine, and what it lacks."""
FORM: Final = (
    f"one of {', '.join(MODELS)}, then any of ,+FEATURE and ,-FEATURE, ,vendor=AuthenticAMD, ,family=N, ,model=N and "
    ",stepping=N"
)
"""How a model is written, for users."""


def cpu_features(text: str) -> frozenset[str]:
    """The features of a model.

    Args:
        text: the model's name, then any of ``,+FEATURE`` and ``,-FEATURE``; ``,vendor=`` and so on may be among them.

    Raises:
        ValueError: a model or a feature that the engine does not have, neither + nor - before one, or no identity.
    """
    cpu_identity(text)
    name, *changes = (part for part in text.split(",") if "=" not in part)
    if name in _BEYOND:
        raise ValueError(f"the engine has no {', '.join(_BEYOND[name].split())}")
    if name not in MODELS:
        raise ValueError(f"no model {name!r}{_guess(name, MODELS)}")
    features = set(MODELS[name])
    for change in changes:
        sign, feature = change[:1], change[1:]
        if sign not in {"+", "-"}:
            raise ValueError(f"{change!r} does not begin with + or -")
        if feature not in ENGINE:
            raise ValueError(f"the engine has no feature {feature!r}{_guess(feature, ENGINE)}")
        (features.add if sign == "+" else features.discard)(feature)
    return frozenset(features)


def cpu_identity(text: str) -> CpuIdentity | None:
    """Whose processor a model is; None where it does not say, for the platform's usual one.

    Args:
        text: as for :func:`cpu_features`.

    Raises:
        ValueError: there is no such part of an identity, or it cannot have that value.
    """
    said: dict[str, str] = {}
    for part in text.split(","):
        key, given, value = part.partition("=")
        if given:
            said[key] = value
    if not said:
        return None
    usual = CpuIdentity(said.pop("vendor", INTEL))
    numbers = {key: _number(key, value) for key, value in said.items()}
    return CpuIdentity(usual.vendor, **{"family": usual.family, "model": usual.model, **numbers})


def _number(key: str, value: str) -> int:
    if key not in MOST:
        raise ValueError(f"no {key!r} can be set{_guess(key, frozenset(MOST) | {'vendor'})}")
    try:
        number = int(value, 0)
    except ValueError:
        raise ValueError(f"{key} {value!r} is no number") from None
    if not 0 <= number <= MOST[key]:
        raise ValueError(f"{key} {number} is not within 0 to {MOST[key]}")
    return number


def _guess(name: str, there: dict[str, frozenset[str]] | frozenset[str]) -> str:
    meant = difflib.get_close_matches(name, sorted(there), n=1)
    return f" (did you mean {meant[0]}?)" if meant else ""
