"""Corpora beside each other and beside a task: sizes, diversity, words in common."""
