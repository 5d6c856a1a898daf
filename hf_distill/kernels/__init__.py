"""Arithmetic below the models: fast products and attention on the CPU, the relation loss on CUDA, least squares.

A kernel computes the same result as PyTorch and knows no model; callers choose between kernels.
"""
