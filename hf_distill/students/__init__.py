"""Students: their shapes, configurations and first weights, and vocabularies cut to their language.

The training of a student does not belong here, nor does anything that is saved beside it.
"""
