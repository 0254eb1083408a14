"""Sampling with transformers: the same draws in any batch, and what the policy thought of each token."""
