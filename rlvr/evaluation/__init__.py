"""Held-out accuracy, graded by the function that rewards."""
