"""Augmented corpora: the texts of a task with words replaced (TaskDA). Alone in `corpus`, this may use torch."""
