"""What a person reads in a terminal, and the JSON beside it."""
