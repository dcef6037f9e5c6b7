"""Running a program: arenas, threads, results."""
