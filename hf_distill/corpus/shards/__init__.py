"""A general corpus in shards, for one that is too large for one machine."""
