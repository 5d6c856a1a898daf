"""What a person reads about runs and models: pages, curves, speed, attention, ONNX files.

Nothing here trains.
"""
