"""What is done to the logits before a token is drawn: one variant, one file."""
