"""Files and folders that are whole or not there, steps that are finished or absent, and what differs between two runs.

What is read is checked here too: plain values against type hints, names and places for staying apart.
Nothing here knows what it writes: no corpus, no task, no training.
"""
