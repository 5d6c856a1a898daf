"""The build of a corpus, from a task's sentences to finished rows, and the mixing of general corpora.

Turning text into terms belongs to `corpus.text`, and searching for terms to `corpus.search`.
"""
