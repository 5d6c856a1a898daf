"""Students: their shapes, configurations and first weights, and trimmed vocabularies.

The training of a student does not belong here, and neither does anything that is saved beside it.
"""
