"""Speed and size of a student beside its teacher, measured in turns on the same batches.

Scores are read from the results of runs and are not computed here.
"""
