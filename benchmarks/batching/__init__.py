"""The batching benchmark: a model at the end of the whole queue against the same model called directly."""
