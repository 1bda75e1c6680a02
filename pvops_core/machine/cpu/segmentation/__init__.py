"""Segment registers, descriptors, and the faults that come of the segment."""
