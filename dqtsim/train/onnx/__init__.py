"""Float ONNX models as PyTorch modules: read from the file, operator by operator, with onnxruntime as the reference."""
