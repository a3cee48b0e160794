"""Kobai (勾配, "gradient"): neural networks on NumPy and, with one flag, on CuPy."""
