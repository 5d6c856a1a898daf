"""Records signals of models in a forward pass: hidden states, queries, keys, values, attention scores, logits.

The use of signals does not belong here: no loss, no teacher, no training.
"""
