"""Stored teachers: signals that were computed once and are on disk, with their rows.

Only `precompute`, which writes them, runs a model.
"""
