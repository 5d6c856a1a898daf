"""Students outside PyTorch: ONNX files, in fp32 and int8, checked against the original model.

Nothing here changes the student itself; the speed of its files is measured in `reports.speed`.
"""
