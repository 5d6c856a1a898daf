"""Subclasses of `transformers.Trainer`: distillation, fine-tuning, and training on many tasks at once.

The life of a training is told here; losses, teachers and data belong to the rooms below.
"""
