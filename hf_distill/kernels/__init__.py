"""Faster arithmetic: products, attention and packed weights of frozen models on the CPU, the relation loss on CUDA.

A kernel computes what PyTorch computes and knows no model; the choice between kernels belongs to their callers.
"""
