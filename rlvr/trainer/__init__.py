"""The one seam to TRL."""
