"""Starting a run's processes: one machine or many, and what they must agree on before they train."""
