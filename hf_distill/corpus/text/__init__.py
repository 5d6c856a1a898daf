"""Text of a general corpus: splits it into units, words and terms, and finds the rows that can be used.

Nothing here knows an index, a query or a task.
"""
