"""Signals of models while they run: hidden states, queries, keys and values, attention scores, logits.

What is done with a signal does not belong here: no loss, no teacher, no training.
"""
