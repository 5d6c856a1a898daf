"""Teachers whose signals were computed once and lie on disk, with the rows that they belong to.

Nothing here runs a model but `precompute`, which writes them.
"""
