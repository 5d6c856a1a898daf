"""The metrics of tasks, as functions of predictions and labels and as modules of `evaluate`.

Nothing here knows a model, a tokenizer or the source of the rows.
"""
