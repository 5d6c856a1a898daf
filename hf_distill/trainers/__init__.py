"""Subclasses of `transformers.Trainer`: distillation, fine-tuning, and training on many tasks at once.

Losses, teachers and data belong to the rooms below; here is the life of a training.
"""
