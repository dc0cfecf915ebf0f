"""The workers' side: one per rank, in the engine's process."""
