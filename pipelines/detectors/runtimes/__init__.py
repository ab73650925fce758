"""What runs YOLOX on letterboxed canvases: torch, or ONNX Runtime without torch."""
