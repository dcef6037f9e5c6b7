"""The report for a terminal, and the same as JSON."""
