"""Silicon check: a tile in SystemVerilog, vectors that any test bench can read, and the two run side by side."""
