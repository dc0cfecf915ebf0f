"""Copies between the mapped pool and an engine's KV cache, in host memory or on a GPU."""
