"""The report for a browser: one self-contained page."""
