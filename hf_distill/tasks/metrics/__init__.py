"""The scores of tasks, as functions and as modules of `evaluate`."""
