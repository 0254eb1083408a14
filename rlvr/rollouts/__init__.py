"""Prompt stream, micro-batch planning, and the record of what was sampled."""
