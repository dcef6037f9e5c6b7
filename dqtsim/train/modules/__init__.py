"""Nested modules: one per kind of step that computes, with fake quantization, integer-exact mode and constants."""
