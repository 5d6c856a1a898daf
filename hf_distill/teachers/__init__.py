"""Teachers as sources of signals: live, stored, several at once, with adapters or tokenizers of their own.

A teacher gives what it computes and never decides what a student makes of it: losses belong to the objectives.
"""
