"""Intel's MKL: Kobai uses the matrix library that NumPy was built with, see ``kobai info``."""


def is_available() -> bool:
    """Whether Kobai itself calls MKL: no."""
    return False
