"""Whether a losing answer wins by talking to its judge."""
