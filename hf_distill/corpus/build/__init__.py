"""One build of a corpus, from a task's sentences to finished rows, and the mixing of general corpora.

How text becomes terms belongs to `corpus.text`, and how terms are searched to `corpus.search`.
"""
