"""Hardware check: a tile in SystemVerilog, vectors that any test bench can read, and their co-simulation."""
