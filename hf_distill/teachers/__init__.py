"""Teachers as sources of signals: live, stored, several at once, with adapters or tokenizers of their own.

A teacher only gives signals; what a student learns from them, the losses, belongs to the objectives.
"""
