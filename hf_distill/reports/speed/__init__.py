"""Speed and size of a student compared with its teacher, measured in turns on the same batches.

Scores are read from the results of runs, and are not computed here.
"""
