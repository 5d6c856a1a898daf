"""Teachers whose signals were computed once and lie on disk."""
