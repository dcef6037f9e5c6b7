"""From a plan to a program: the operations of each step, and the places of its tensors."""
