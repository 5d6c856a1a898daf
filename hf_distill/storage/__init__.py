"""Files and folders that are whole or not there, steps that are finished or absent, names that stay in their folder.

Nothing here knows what it writes: no model, no corpus, no task.
"""
