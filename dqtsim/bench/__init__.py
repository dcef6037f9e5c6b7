"""Speed: a plan in dqtsim, the same network in onnxruntime, and the peak of the CPU, in one interleaved run."""
