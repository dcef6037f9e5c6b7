"""From a plan to a program: which operations compute each step, and where its tensors lie."""
