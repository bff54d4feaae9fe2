"""Models for other runtimes: the streaming step as an ONNX file, float32 or int8, and onnxruntime as an engine."""
