"""The proofs that a layer needs to run natively, and the constants that depend on them."""
