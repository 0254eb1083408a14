"""The report of a run: one HTML file, readable offline, made from the run's folder alone."""
