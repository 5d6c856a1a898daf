"""BM25 engines, which implement the protocol of `hf_distill.corpus.search.retrieval`; imported when chosen.

Text analysis does not belong here: an engine gets term ids and returns rows with scores.
"""
