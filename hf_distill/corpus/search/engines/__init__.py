"""BM25 engines, each behind the protocol of `hf_distill.corpus.search.retrieval`; imported when they are chosen.

Text analysis does not belong here: an engine gets terms as numbers, and gives rows with scores.
"""
