"""Rows of every kind of task: they are checked and tokenized, and a model's outputs for them are decoded.

Loading rows belongs to `tasks`, scoring them to `tasks.metrics`.
"""
