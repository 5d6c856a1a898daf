"""Students outside PyTorch: ONNX files, in fp32 and int8, checked against the model that they came from.

Nothing here changes the student itself; how fast its file runs is measured in `reports.speed`.
"""
