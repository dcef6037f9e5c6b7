"""What is proven of a layer before it may run natively, and the constants that rest on it."""
