"""From emitted IR to functions in memory."""
