"""Tensors in, tensors out. Imports torch only.

Letters: B completions on this rank, P prompts, G group size (B = P * G, groups contiguous), T completion tokens,
V vocabulary, N values selected from.
"""
