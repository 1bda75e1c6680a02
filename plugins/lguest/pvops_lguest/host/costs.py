"""What entering the host costs the guest, in nanoseconds of virtual time.

The ratio is what counts: lguest's author measured a system call at 1,750 ns when it went through the host and
at 270 ns when the trap went straight to the guest (drivers/lguest/interrupts_and_traps.c).
"""

from __future__ import annotations

HOST_TRIP_NS = 740
"""Into the host and back: half of a reflected system call, which makes two such trips."""

DIRECT_TRAP_NS = 270
"""A trap that the CPU delivers to the guest itself."""

QUEUED_CALL_NS = 60
"""One call taken from the ring, where no trip is needed."""
