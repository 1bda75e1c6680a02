"""CPU models whose features are known by name: those of QEMU 7.2 without hardware acceleration, as Linux found them.

Read off boots of Linux 6.12.117 on bare metal with one CPU and the mitigations that it chose by itself. Words that the
processor fills are the same for every kernel; those that Linux fills (3, 7, 8, 11) are alike in 6.1 to 7.2. The numbers
of bugs are not, so those go by their names in /proc/cpuinfo.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from pvops_core.machine.cpu.model.identity import AMD, INTEL, CpuIdentity
from pvops_core.patching.altinstructions.capabilities import capability_counts, feature_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pvops_core.images import KernelImage

SYSCALL32: Final = 3 * 32 + 14
SYSENTER32: Final = 3 * 32 + 15


@attrs.frozen
class Model:
    """A CPU model.

    Attributes:
        words: words of features by their number; the rest are 0.
        bugs: names of the bugs that Linux finds, as far as it knows of them.
        identity: whose processor it is.
    """

    words: Mapping[int, int]
    bugs: frozenset[str]
    identity: CpuIdentity

    def features(self, image: KernelImage) -> frozenset[int]:
        """Numbers of the features that a kernel would find."""
        # A kernel with fewer words has no place for the features of the others.
        capabilities, _bugs = capability_counts(image)
        words = {number: word for number, word in self.words.items() if number < capabilities}
        found = {32 * number + bit for number, word in words.items() for bit in range(32) if word >> bit & 1}
        # By their names, since each kernel counts bugs on its own.
        bugs = {f"bug:{name}" for name in self.bugs}
        found |= {number for number, name in feature_names(image).items() if name in bugs}
        # Once the bit said that sysenter enters from 32-bit code; where nothing tells the two apart any more (7.2),
        # that anything faster than int 0x80 does.
        if SYSCALL32 in found and "xen_enable_sysenter" not in image.symbols:
            found.add(SYSENTER32)
        return frozenset(found)


def _model(words: str, bugs: str, family: int, number: int) -> Model:
    """A model of ``number:word`` in hexadecimal each, of names, and of its maker's numbers (QEMU's)."""
    pairs = (each.split(":") for each in words.split())
    identity = CpuIdentity(INTEL if family == _INTELS else AMD, family, number)
    return Model({int(place): int(word, 16) for place, word in pairs}, frozenset(bugs.split()), identity)


_INTELS = 6

_K8_BUGS = "fxsave_leak sysret_ss_attrs null_seg swapgs_fence amd_e400 spectre_v1 spectre_v2 spectre_v2_user"

_INTEL_BUGS = "cpu_meltdown spectre_v1 spectre_v2 spectre_v2_user spec_store_bypass swapgs bhi its"

_SKYLAKE_SERVER = _model(
    "0:78bfbfd 1:2c100800 3:2758100 4:fed83203 6:21 7:a0082800 9:19803a9 10:5 11:8005020 14:4 16:18 20:4",
    f"{_INTEL_BUGS} l1tf mds itlb_multihit mmio_stale_data retbleed gds",
    6,
    85,
)

MODELS: Final[Mapping[str, Model]] = {
    "qemu64": _model("0:78bfbfd 1:2193fbfd 3:6714010 4:80002001 6:105 7:82000 8:8000 11:1020 20:4", _K8_BUGS, 15, 107),
    "max": _model(
        "0:fcbfbfd 1:edd3fbfd 3:6714010 4:fed8320b 6:175 7:82000 8:8000 9:1d843a9 10:5 11:1020 14:4 15:10010001 "
        "16:8001021c 20:4",
        _K8_BUGS,
        15,
        107,
    ),
    "EPYC": _model(
        "0:78bfbfd 1:2dd3fbfd 3:6714010 4:fed8320b 6:175 7:110a2000 8:8000 9:9801a9 10:5 11:8100d020 14:4 15:1 20:4",
        "fxsave_leak sysret_ss_attrs null_seg spectre_v1 spectre_v2 spectre_v2_user spec_store_bypass retbleed smt_rsb "
        "srso div0",
        23,
        1,
    ),
    "Skylake-Client": _model(
        "0:78bfbfd 1:28100800 3:2758100 4:fed83203 6:21 7:a0082800 9:1803a9 10:5 11:8005020 14:4 20:4",
        "cpu_meltdown spectre_v1 spectre_v2 spectre_v2_user spec_store_bypass l1tf mds swapgs itlb_multihit srbds "
        "mmio_stale_data retbleed gds bhi its",
        6,
        94,
    ),
    "Haswell": _model(
        "0:78bfbfd 1:28100800 3:2758100 4:fed83203 6:21 7:a0082800 9:3a9 10:1 11:8005020 14:4 20:4",
        f"{_INTEL_BUGS} l1tf mds itlb_multihit srbds mmio_unknown",
        6,
        60,
    ),
    "Broadwell": _model(
        "0:78bfbfd 1:28100800 3:2758100 4:fed83203 6:21 7:a0082800 9:1803a9 10:1 11:8005020 14:4 20:4",
        f"{_INTEL_BUGS} l1tf mds itlb_multihit srbds mmio_unknown",
        6,
        61,
    ),
    "Skylake-Server": _SKYLAKE_SERVER,
    "Cascadelake-Server": _SKYLAKE_SERVER,
    "Icelake-Server": _model(
        "0:78bfbfd 1:2c100800 3:2758100 4:fed83203 6:21 7:a0082800 9:19803a9 10:5 11:8005020 14:4 16:1021c 20:4",
        f"{_INTEL_BUGS} l1tf mds mmio_stale_data rfds",
        6,
        134,
    ),
    "EPYC-Rome": _model(
        "0:78bfbfd 1:2dd3fbfd 3:6714010 4:fed8320b 6:175 7:110a2000 8:8000 9:19801a9 10:5 11:1100d020 14:4 15:1 16:4 "
        "20:4",
        "fxsave_leak sysret_ss_attrs null_seg spectre_v1 spectre_v2 spectre_v2_user spec_store_bypass retbleed smt_rsb "
        "srso",
        23,
        49,
    ),
    "EPYC-Milan": _model(
        "0:78bfbfd 1:2dd3fbfd 3:6754010 4:fed8320b 6:175 7:10082000 8:8000 9:19803a9 10:5 11:2200d020 14:4 15:10000001 "
        "16:1c 20:4 21:2000",
        "fxsave_leak sysret_ss_attrs null_seg spectre_v1 spectre_v2 spectre_v2_user spec_store_bypass srso tsa",
        25,
        1,
    ),
}
"""The models by QEMU's names for them."""
