"""Fine-tuning of one encoder on many tasks at once: how they are mixed, weighted and scored.

A training on one task belongs to `trainers.fine_tuning`.
"""
