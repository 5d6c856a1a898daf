"""Teachers as sources of signals: live, stored, several at once, with adapters or tokenizers of their own.

A teacher says what it computes and never what a student should make of it: losses belong to the objectives.
"""
