"""Helpers around training that are no part of a network: data loading, and computing again instead of keeping."""

from kobai.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
