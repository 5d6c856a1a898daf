"""The registered tasks as data."""
