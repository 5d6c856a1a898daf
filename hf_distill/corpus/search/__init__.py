"""Retrieval: one small protocol, token streams on disk, and engines that all return the same hits.

How anchors become queries, and what is done with hits, belongs to `corpus.build`.
"""
