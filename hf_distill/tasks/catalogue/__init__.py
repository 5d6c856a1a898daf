"""The registered tasks as data: a `TaskSpec` each, with the paper or site that its settings come from.

Code that reads rows or computes scores does not belong here.
"""
