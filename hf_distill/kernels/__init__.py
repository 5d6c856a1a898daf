"""Arithmetic below the models: fast products and attention on the CPU, the relation loss on CUDA, least squares.

A kernel computes what PyTorch computes and knows no model; the choice between kernels belongs to their callers.
"""
