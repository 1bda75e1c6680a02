"""How a backend's op leaves a call to the function that its guest has for the op itself."""

from __future__ import annotations


class OwnFunction(Exception):  # noqa: N818 - not an error: what an op asks for
    """Raised by a backend's op before it has changed anything: the guest's own function is to serve this call.

    For what needs the guest's own bookkeeping. Only a kernel has such functions; of the built-in guest, whose ops are
    all its backend's, it is an error.

    Args:
        reason: what the op does not do itself, in a few words that are the same for each such call: they are counted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
