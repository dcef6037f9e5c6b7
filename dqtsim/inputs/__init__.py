"""INPUT: pictures, arrays and data sets become codes."""
