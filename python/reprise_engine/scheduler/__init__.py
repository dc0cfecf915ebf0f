"""The scheduler's side: an engine's hooks become questions to the cache, and plans for the workers."""
