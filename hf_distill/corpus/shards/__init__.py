"""Builds a general corpus that is too large for one machine in shards, in two passes, with the same resulting rows.

Functions that an unsharded build needs as well belong to `corpus.build`.
"""
