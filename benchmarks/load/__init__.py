"""What the HTTP API bears."""
