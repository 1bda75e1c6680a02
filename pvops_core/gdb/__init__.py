"""A debugger's stub: GDB's remote serial protocol for the guest of a session, at the place where that runs.

``packets`` is the protocol's bytes, ``dialogue`` what is answered to a packet, ``server`` the socket, and ``debugger``
lets the session run and stand as the other end wants. Source of the protocol: the GDB manual, appendix "GDB Remote
Serial Protocol". No server of it was found on PyPI that is maintained and knows nothing of a certain target.
"""
