"""A random rectangle of a tensor, erased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.ops.create import tensor
from kobai.random import default_generator
from kobai.transforms.pictures import happens, integer, probability, size_of, uniform

__all__ = ["RandomErasing"]


class RandomErasing:
    """With probability ``p`` a rectangle of a tensor (…, C, H, W) gets other values (Zhong et al., arXiv:1708.04896).

    Args:
        p: probability.
        scale: least and greatest share of the area.
        ratio: least and greatest height over width; its logarithm is uniform.
        value: a number, one for each channel, or ``"random"`` for numbers of N(0, 1).
        inplace: change the tensor itself.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: Any = 0,
        inplace: bool = False,
    ) -> None:
        if isinstance(value, str) and value != "random":
            raise ValueError(f"RandomErasing: expected value as numbers or 'random', got {value!r}")
        if not 0 <= scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: expected scale within [0, 1] and ratio above 0, got {scale} and {ratio}")
        self.p, self.scale, self.ratio = probability("RandomErasing", p), scale, ratio
        self.value, self.inplace = value, inplace

    def __call__(self, img: Tensor) -> Tensor:
        if not isinstance(img, Tensor) or img.ndim < 3:
            got = f"shape {tuple(img.shape)}" if isinstance(img, Tensor) else type(img).__name__
            raise TypeError(f"RandomErasing: expected a tensor (…, C, H, W); ToTensor comes before it; got {got}")
        if not happens(self.p):
            return img
        height, width = size_of(img)
        low, high = (math.log(r) for r in self.ratio)
        for _ in range(10):
            area, ratio = height * width * uniform(*self.scale), math.exp(uniform(low, high))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < height and w < width:
                top, left = integer(height - h + 1), integer(width - w + 1)
                erased = img if self.inplace else img.clone()
                erased[..., top : top + h, left : left + w] = self._values(img, h, w)
                return erased
        return img

    def _values(self, img: Tensor, h: int, w: int) -> Any:
        if self.value == "random":
            drawn = default_generator.numpy.standard_normal((img.shape[-3], h, w), dtype=np.float32)
            return tensor(drawn, dtype=img.dtype, device=img.device)
        if isinstance(self.value, (int, float)):
            return self.value
        if len(self.value) not in (1, img.shape[-3]):
            raise ValueError(f"RandomErasing: expected 1 or {img.shape[-3]} numbers as value, got {len(self.value)}")
        return tensor(list(self.value), dtype=img.dtype, device=img.device).reshape(-1, 1, 1)

    def __repr__(self) -> str:
        return f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value}, inplace={self.inplace})"
