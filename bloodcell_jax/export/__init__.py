"""Trained models for other programs: StableHLO, ONNX, safetensors and timm."""
