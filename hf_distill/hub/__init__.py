"""The Hub, in both directions: models, tokenizers and data sets that come from it, cards and folders that go to it.

What a card tells is handed in as facts; nothing here trains or scores.
"""
