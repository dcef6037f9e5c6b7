"""OUT: reports for people: tables of runs, models and comparisons."""
