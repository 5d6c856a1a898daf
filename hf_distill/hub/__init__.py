"""The Hub, in both directions: models, tokenizers and data sets that come from it, cards and folders that go to it.

Facts of a card are handed in by the caller; nothing here trains or scores.
"""
