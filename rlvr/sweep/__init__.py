"""Sweeps: many runs as one object, from their arms and seeds to a table with paired differences."""

PLAN = "sweep.yaml"
"""What makes a folder a sweep's."""
