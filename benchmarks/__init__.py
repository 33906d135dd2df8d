"""Programs that measure Bakeoff; each one is `python -m benchmarks.NAME`."""
