"""Training helpers that are not part of a network: data loading, and recomputing instead of keeping."""

__all__ = ["checkpoint", "data"]
