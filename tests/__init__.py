"""Tests; `tests/ranks.py` runs a function on several processes."""
