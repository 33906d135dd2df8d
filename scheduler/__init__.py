"""The top floor: taking tasks in, choosing models, sending, recovering, and the servers for one machine."""
