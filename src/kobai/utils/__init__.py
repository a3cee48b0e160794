"""Training helpers that are not part of a network: data loading, grids of images, and recomputing instead of keeping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kobai.utils.pictures import make_grid, save_image

if TYPE_CHECKING:
    from kobai.core.tensor import Tensor

__all__ = ["checkpoint", "data", "make_grid", "save_image", "swap_tensors"]


def swap_tensors(t1: Tensor, t2: Tensor) -> None:
    """Exchange all that two tensors are: memory, class, gradient and attributes. What holds one of them then sees the other.

    >>> import kobai
    >>> a, b = kobai.ones(2), kobai.zeros(3)
    >>> kobai.utils.swap_tensors(a, b)
    >>> a
    tensor([0., 0., 0.])
    """
    if t1._base is not None or t2._base is not None or t1._node is not None or t2._node is not None:
        raise RuntimeError("swap_tensors: expected leaves that are no views of others")
    from kobai.core.conversion import everything

    first, second = dict(everything(t1)), dict(everything(t2))
    t1.__class__, t2.__class__ = t2.__class__, t1.__class__
    for tensor, held in ((t1, second), (t2, first)):
        everything(tensor).clear()
        everything(tensor).update(held)
