"""The registered tasks as data: each is a `TaskSpec` that cites the paper or site of its settings.

Code that reads rows or computes scores does not belong here.
"""
