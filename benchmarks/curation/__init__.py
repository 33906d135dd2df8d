"""Curation at scale: what it finds of what was planted, how much memory it takes, how fast its stages are."""
