"""Sweeps: many runs as one object, from their arms and seeds to a table with paired differences."""
