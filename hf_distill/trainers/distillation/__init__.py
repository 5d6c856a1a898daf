"""Distillation: the trainer, and the modules that it calls to read rows, evaluate, save and publish.

Formulas of losses do not belong here (`objectives`), nor does anything that one kind of teacher needs (`teachers`).
"""
