"""Booting Linux on bare metal as firmware and a boot loader do it: tables, boot parameters, entry."""
