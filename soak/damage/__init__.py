"""Generators of damage: fields of images, streams, files."""
