"""Compares corpora with each other and with a task: their sizes, their diversity, and their common words.

Nothing here changes or builds a corpus.
"""
