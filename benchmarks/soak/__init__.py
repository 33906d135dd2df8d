"""The soak test: a steady load while something is killed every few seconds, and what became of every task."""
