"""Distillation: the trainer, and what it calls to read rows, evaluate, save and publish."""
