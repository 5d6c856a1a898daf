"""BM25 engines, each behind the protocol of `hf_distill.corpus.search.retrieval`; imported when they are chosen."""
