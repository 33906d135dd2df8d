"""Requests of several steps, to run as they stand; see README.md here."""
