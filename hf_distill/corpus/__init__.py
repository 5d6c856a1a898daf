"""Contextualized corpora: general text that is similar to a task's text.

Only `augment` may import torch, and nothing here knows an objective, a teacher or a training.
"""
