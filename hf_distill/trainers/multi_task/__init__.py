"""Fine-tuning of one encoder on many tasks at once."""
