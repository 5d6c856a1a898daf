"""A general corpus that is too large for one machine is built in shards, in two passes, to the same rows.

What one build of a whole corpus needs as well belongs to `corpus.build`.
"""
