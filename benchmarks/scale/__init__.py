"""What a million stored tasks, or a hundred thousand waiting ones, do to the queue: figures and query plans."""
