"""The verbs of `hf-distill`: each reads its settings, does one job and reports the result.

Functions that Python users call as well do not belong here; they are in the rooms below.
"""
