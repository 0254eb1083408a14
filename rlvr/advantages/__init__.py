"""How much credit does each token get? One file = one pure function and the dataclass with its numbers."""
