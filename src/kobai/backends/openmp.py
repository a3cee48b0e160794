"""OpenMP: Kobai's own loops run in Numba's threads, see ``kobai info``."""


def is_available() -> bool:
    """Whether Kobai itself uses OpenMP: no."""
    return False
