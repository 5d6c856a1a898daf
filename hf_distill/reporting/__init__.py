"""A page about runs: their curves, settings and scores, from what lies in their folders."""
