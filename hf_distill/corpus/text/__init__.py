"""Text of a general corpus: cut into units, into words and terms, and looked through for rows that can be used.

Nothing here knows an index, a query or a task.
"""
