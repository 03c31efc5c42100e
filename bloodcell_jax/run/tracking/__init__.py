"""Where the metrics of a run go besides `metrics.jsonl`: TensorBoard, W&B, MLflow."""
