"""Pages about runs and models for human readers: curves, speed, attention maps, and ONNX files.

Nothing here trains a model or scores one on a task.
"""
