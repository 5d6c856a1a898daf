"""Rows of every kind of task: checked, tokenized, and what a model says about them decoded."""
