"""Whether a compiler lays out the structures of headers as :mod:`pvops_core.headers` does."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from pvops_core.headers import Header

_DECLARED: Final = re.compile(r"^(struct|union) (\w+) {", re.MULTILINE)


def _paths(kind: Any) -> Iterator[str]:  # noqa: ANN401
    """Fields of the library's type of a structure, and theirs."""
    for name, field in kind.fields.items():
        yield name
        if hasattr(field.type, "fields"):
            yield from (f"{name}.{inner}" for inner in _paths(field.type))


def check_layout(headers: Sequence[Header], bits: int) -> int:
    """Have gcc compile the headers, in this order, with what is claimed of each size and offset: how many claims.

    Skips the test where there is no gcc.

    Raises:
        AssertionError: one does not hold; gcc's message names it.
    """
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    text, claims = "#include <stdint.h>\n", []
    for header in headers:
        declared = header.path.read_text(encoding="utf-8")
        text += f"#pragma pack(push, 1)\n{declared}#pragma pack(pop)\n" if header.packed else declared
        for kind, name in _DECLARED.findall(declared):
            if name not in header.types(bits).typedefs:
                continue  # of the other width
            structure, tag = header[name], f"{kind} {name}"
            claims.append(f"sizeof({tag}) == {structure.size(bits)}")
            claims += [
                f"__builtin_offsetof({tag}, {field}) == {structure.offset(field, bits)}"
                for field in _paths(structure.header.types(bits).resolve(name))
            ]
    text += "".join(f'_Static_assert({claim}, "{claim}");\n' for claim in claims)
    command = ["gcc", "-ffreestanding", f"-m{bits}", "-fsyntax-only", "-xc", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return len(claims)
