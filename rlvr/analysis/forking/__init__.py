"""Forking paths (arXiv 2412.07961): at which token of an answer its outcome is decided. See docs/forking_paths.md."""
