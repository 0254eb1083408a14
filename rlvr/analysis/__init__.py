"""What the tokens of recorded rollouts show: `rlvr analyze`."""
