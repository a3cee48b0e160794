"""Training helpers that are not part of a network: data loading, and recomputing instead of keeping."""

from kobai.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
