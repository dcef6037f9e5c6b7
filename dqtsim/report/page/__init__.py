"""What a person reads in a browser: one self-contained page."""
