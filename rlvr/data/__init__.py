"""Prompts: sources, templates, the built-in arithmetic task. No torch."""
