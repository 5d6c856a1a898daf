"""The verbs of `hf-distill`: each reads its settings, does one job and says what came of it.

What a Python user would call as well belongs to the rooms below.
"""
