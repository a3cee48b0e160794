"""Other images in every epoch: shifted and mirrored at random, a whole batch at once, on its device."""

from __future__ import annotations

from kobai.core.tensor import Tensor
from kobai.nn.module import Module
from kobai.ops.augment import shift_and_flip

__all__ = ["Augment"]


class Augment(Module):
    """In training each image of a batch (N, C, H, W) is moved by up to ``shift`` pixels, and with ``flip`` half are mirrored.

    What comes in from outside is 0. In evaluation it does nothing. As the first layer of a net it runs on the net's device
    and inside a captured step; its numbers come from the counter stream, as dropout's do: the same on every backend.

    Args:
        shift: most pixels in each direction.
        flip: mirror left and right; right for photographs, wrong for digits and letters.

    >>> import kobai
    >>> from kobai import transforms
    >>> augment = transforms.Augment(shift=2)
    >>> moved = augment(kobai.ones(100, 1, 8, 8))
    >>> moved.shape, bool((moved.sum((1, 2, 3)) >= 36).all())  # of 8 × 8 ones at least 6 × 6 stay
    (kobai.Size([100, 1, 8, 8]), True)
    >>> bool((augment.eval()(moved) == moved).all())
    True
    """

    _repr_names = ("shift", "flip")

    def __init__(self, shift: int = 2, flip: bool = False) -> None:
        super().__init__()
        if isinstance(shift, bool) or not isinstance(shift, int) or shift < 0:
            raise ValueError(f"Augment: expected shift as an integer >= 0, got {shift!r}")
        self.shift, self.flip = shift, flip

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            raise ValueError(f"Augment: expected (N, C, H, W), got shape {tuple(input.shape)}")
        if not self.training or not (self.shift or self.flip):
            return input
        return shift_and_flip(input, self.shift, self.flip)
