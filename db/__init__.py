"""The ground floor: settings, the schema, and every state transition as a named function.

Nothing here imports `worker` or `scheduler`; only this package writes a status.
"""
