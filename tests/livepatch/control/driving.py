"""A tool driven by a script, on a guest without memory."""

from __future__ import annotations

from tests.livepatch.conftest import NEW, VERSION_CODE, Patched, returning


def files(made: Patched) -> dict[str, bytes]:
    hello, bye = made.builder(b"hello"), made.builder(b"bye", b"hello")
    for builder, name in ((hello, "hello"), (bye, "bye")):
        builder.text(f"{name}_version", returning(NEW))
        builder.replace("version", f"{name}_version", old_size=len(VERSION_CODE))
    hello.modinfo(LIVEPATCH_RULEZ="1", by="us")
    return {"some/hello.livepatch": hello.build(), "bye.livepatch": bye.build(), "bad": b"\x7fELF"}
