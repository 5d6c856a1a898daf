"""Fine-tuning on the labels of a task, for teachers and students alike, and scoring of models.

Nothing here depends on a teacher, except the masked-LM head, which is distilled.
"""
