"""Pages about runs and models for people to read: curves, speed, attention maps, and ONNX files.

Nothing here trains a model or scores one on a task.
"""
