"""What a task costs: the same work through this queue and through what people use today."""
