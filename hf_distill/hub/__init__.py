"""The Hub, in both directions: loads models, tokenizers and data sets, and writes and pushes cards and folders.

The caller provides the facts of a card; nothing here trains or scores.
"""
