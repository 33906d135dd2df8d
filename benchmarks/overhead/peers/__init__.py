"""The same work on other queues. These modules run in the peers' environment, so they import nothing of this project
but `benchmarks.overhead.driver` and each other.
"""
