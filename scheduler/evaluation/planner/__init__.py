"""Are plans right? Published requests with known tools, and generated ones with known graphs, against every planner."""
