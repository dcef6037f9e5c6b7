"""OUT: what a person reads: tables of runs, models and comparisons."""
