"""Helpers around training that are no part of a network: data loading."""

from kobai.utils import data

__all__ = ["data"]
