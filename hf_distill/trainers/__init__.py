"""`transformers.Trainer` subclasses."""
