"""Completion and gold in, verdict out. No torch."""
