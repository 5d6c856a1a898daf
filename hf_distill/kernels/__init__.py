"""Faster arithmetic for the CPU: products, attention and packed weights of frozen models.

A kernel computes what PyTorch computes and knows no model; the choice between kernels belongs to their callers.
"""
