"""Retrieval: one small protocol, token streams on disk, and engines that all give the same hits.

How anchors become queries, and what becomes of hits, belongs to `corpus.build`.
"""
