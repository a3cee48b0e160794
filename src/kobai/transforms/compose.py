"""Transforms of transforms: one after the other, some by chance, any function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kobai.random import default_generator
from kobai.transforms.pictures import Picture, happens, integer, probability

__all__ = ["Compose", "Lambda", "RandomApply", "RandomChoice", "RandomOrder"]

Transform = Callable[[Any], Any]


class _Several:
    def __init__(self, transforms: Sequence[Transform]) -> None:
        if isinstance(transforms, (str, bytes)) or not hasattr(transforms, "__iter__"):
            raise TypeError(f"{type(self).__name__}: expected a list of transforms, got {type(transforms).__name__}")
        self.transforms = transforms

    def __repr__(self) -> str:
        inside = "".join(f"\n    {each}" for each in self.transforms)
        return f"{type(self).__name__}({inside}\n)"


class Compose(_Several):
    """One transform after the other.

    >>> import kobai
    >>> from kobai import transforms
    >>> middle_mirrored = transforms.Compose([transforms.CenterCrop(2), transforms.RandomHorizontalFlip(1.0)])
    >>> middle_mirrored(kobai.arange(16.0).reshape(1, 4, 4))
    tensor([[[ 6.,  5.],
             [10.,  9.]]])
    """

    def __call__(self, img: Picture) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img


class RandomApply(_Several):
    """All of the transforms with probability ``p``, else none."""

    def __init__(self, transforms: Sequence[Transform], p: float = 0.5) -> None:
        super().__init__(transforms)
        self.p = probability("RandomApply", p)

    def __call__(self, img: Picture) -> Any:
        return Compose(self.transforms)(img) if happens(self.p) else img


class RandomChoice(_Several):
    """One of the transforms, drawn with the weights ``p``, or all alike."""

    def __init__(self, transforms: Sequence[Transform], p: Sequence[float] | None = None) -> None:
        super().__init__(transforms)
        if p is not None and len(p) != len(transforms):
            raise ValueError(
                f"RandomChoice: expected {len(transforms)} weights p, one for each transform, got {len(p)}"
            )
        self.p = p

    def __call__(self, img: Picture) -> Any:
        if self.p is None:
            return self.transforms[integer(len(self.transforms))](img)
        weights = np.asarray(self.p, np.float64)
        return self.transforms[int(default_generator.numpy.choice(len(weights), p=weights / weights.sum()))](img)


class RandomOrder(_Several):
    """All of the transforms, in an order that is drawn anew each time."""

    def __call__(self, img: Picture) -> Any:
        for k in default_generator.numpy.permutation(len(self.transforms)):
            img = self.transforms[int(k)](img)
        return img


class Lambda:
    """Any function as a transform.

    >>> from kobai import transforms
    >>> transforms.Lambda(lambda x: x * 2)(3)
    6
    """

    def __init__(self, lambd: Transform) -> None:
        if not callable(lambd):
            raise TypeError(f"Lambda: expected a function, got {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return "Lambda()"
