"""The middle floor: the Celery app, its tasks, and what runs inside a model worker."""
