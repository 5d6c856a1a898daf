"""Students outside PyTorch: ONNX files, in fp32 and int8, checked against the model that they came from."""
