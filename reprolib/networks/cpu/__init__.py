"""The same answers in less time without a GPU."""
