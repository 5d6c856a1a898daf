"""Augmented corpora: the texts of a task with some words replaced by a model's proposals (TinyBERT's augmentation).

This is the only part of `corpus` that may import torch, and no other part of `corpus` imports it.
"""
