"""Contextualized corpora: general text that is like a task's text.

Torch may be imported by `augment` alone, and nothing here knows an objective, a teacher or a training.
"""
