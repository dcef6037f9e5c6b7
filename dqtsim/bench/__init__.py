"""How fast: a plan by dqtsim, the same network by onnxruntime, and the peak of the CPU, in one interleaved run."""
