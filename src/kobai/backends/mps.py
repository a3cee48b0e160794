"""Apple's Metal, which Kobai does not use."""


def is_available() -> bool:
    """Whether Kobai computes with MPS: no."""
    return False


def is_built() -> bool:
    """Whether Kobai was built with MPS: no."""
    return False
