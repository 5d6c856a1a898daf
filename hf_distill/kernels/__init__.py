"""Faster arithmetic for the CPU: products, attention and packed weights of frozen models.

A kernel computes what PyTorch computes and knows no model; what chooses between kernels belongs to their callers.
"""
