"""BM25 engines, each behind the protocol of `hf_distill.corpus.retrieval`; imported when they are chosen."""
