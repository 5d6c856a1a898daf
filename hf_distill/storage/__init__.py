"""Files and folders that are written atomically, steps that are finished or absent, and differences between two runs.

Inputs are checked here too: plain values against type hints, and names and paths for being safe. Nothing here knows
about a corpus, a task or a training: this room stores what the rooms above give it.
"""
