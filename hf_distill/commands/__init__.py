"""The verbs of `hf-distill`: each reads its settings, does one job and says in a line what came of it.

What a Python user would call as well does not belong here; it lives in the rooms below.
"""
