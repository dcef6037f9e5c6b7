"""The model file: ONNX in and out, and the function bodies that it carries."""
