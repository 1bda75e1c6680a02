"""Kernels' images as guests."""
