"""The HTTP API (`bakeoff api`): tasks in and out, files, events, figures, and an OpenAI-compatible door.

`app` puts it together; `edge` and `access` are what every request passes; `problems` is how everything goes wrong.
"""
