"""Fine-tuning on the labels of a task, of teachers and students alike, and scoring."""
