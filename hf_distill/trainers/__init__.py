"""Subclasses of `transformers.Trainer`: distillation, fine-tuning, and training on many tasks at once.

The steps of a training are here; losses, teachers and data belong to the rooms below.
"""
