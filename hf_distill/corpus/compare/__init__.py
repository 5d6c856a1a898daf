"""Corpora beside each other and beside a task: their sizes, their diversity, and the words that they share.

Nothing here changes or builds a corpus.
"""
