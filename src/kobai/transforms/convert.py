"""From Pillow's images to tensors and back, and values to another scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kobai.core.tensor import Tensor
from kobai.dtypes import dtype as DType
from kobai.ops.create import tensor
from kobai.transforms.pictures import bytes_of, need, to_array
from kobai.utils.pictures import pillow

__all__ = ["ConvertImageDtype", "Normalize", "PILToTensor", "ToPILImage", "ToTensor"]


class ToTensor:
    """An image of Pillow's, or an array (H, W) or (H, W, C), as a tensor (C, H, W); 8 bits as float32 in [0, 1].

    Arrays of other dtypes, and images of mode I, F and I;16, keep their values.

    >>> import numpy as np
    >>> from kobai import transforms
    >>> transforms.ToTensor()(np.full((2, 2), 51, dtype=np.uint8))
    tensor([[[0.2000, 0.2000],
             [0.2000, 0.2000]]])
    """

    def __call__(self, pic: Any) -> Tensor:
        if isinstance(pic, np.ndarray):
            if pic.ndim not in (2, 3):
                raise ValueError(f"ToTensor: expected an array (H, W) or (H, W, C), got shape {pic.shape}")
            array = np.ascontiguousarray(pic[None] if pic.ndim == 2 else pic.transpose(2, 0, 1))
        else:
            if isinstance(pic, Tensor):
                raise TypeError("ToTensor: expected an image of Pillow's or an array, got a tensor already")
            need("ToTensor", pic)
            array = to_array(pic)
        made: Tensor = tensor(np.divide(array, np.float32(255), dtype=np.float32) if array.dtype == np.uint8 else array)
        return made

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """An image of Pillow's as a tensor (C, H, W) of its own dtype."""

    def __call__(self, pic: Any) -> Tensor:
        need("PILToTensor", pic)
        if isinstance(pic, Tensor):
            raise TypeError("PILToTensor: expected an image of Pillow's, got a tensor")
        made: Tensor = tensor(to_array(pic))
        return made

    def __repr__(self) -> str:
        return "PILToTensor()"


class ToPILImage:
    """A tensor (C, H, W) or (H, W), or an array (H, W, C) or (H, W), as an image of Pillow's; floats in [0, 1]."""

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        if not isinstance(pic, (Tensor, np.ndarray)):
            raise TypeError(f"ToPILImage: expected a tensor or an array, got {type(pic).__name__}")
        array = bytes_of(pic) if isinstance(pic, Tensor) else np.squeeze(pic, -1) if pic.shape[2:] == (1,) else pic
        image = pillow().fromarray(np.ascontiguousarray(array))
        return image if self.mode in (None, image.mode) else image.convert(self.mode)

    def __repr__(self) -> str:
        return f"ToPILImage({f'mode={self.mode}' if self.mode else ''})"


class ConvertImageDtype:
    """A tensor in another dtype: values are scaled so that white stays white."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    def __call__(self, image: Tensor) -> Any:
        if image.dtype == self.dtype:
            return image
        wanted = np.dtype(self.dtype)
        if image.is_floating_point():
            if wanted.kind == "f":
                return image.to(self.dtype)
            # Every number of the target stands for an interval of the same length, the last one too.
            return image.mul(float(np.iinfo(wanted).max) + 1.0 - 1e-3).to(self.dtype)
        top = np.iinfo(image.dtype).max
        if wanted.kind == "f":
            return image.to(self.dtype) / top
        other = np.iinfo(wanted).max
        if top > other:
            return (image // ((top + 1) // (other + 1))).to(self.dtype)
        return image.to(self.dtype) * ((other + 1) // (top + 1))

    def __repr__(self) -> str:
        return "ConvertImageDtype()"


class Normalize:
    """(x − mean) / std for each channel of a float tensor (…, C, H, W).

    >>> import kobai
    >>> from kobai import transforms
    >>> transforms.Normalize((0.5,), (0.25,))(kobai.ones(1, 1, 2))
    tensor([[[2., 2.]]])
    """

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float, inplace: bool = False) -> None:
        self.mean, self.std, self.inplace = mean, std, inplace
        if not np.all(np.asarray(std)):
            raise ValueError(f"Normalize: expected std other than 0, got {std}")

    def __call__(self, tensor: Tensor) -> Any:
        need("Normalize", tensor)
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            got = tensor.dtype if isinstance(tensor, Tensor) else "an image of Pillow's"
            raise TypeError(f"Normalize: expected a tensor of floats (ToTensor makes one), got {got}")
        if tensor.ndim < 3:
            raise ValueError(f"Normalize: expected a tensor (…, C, H, W), got shape {tuple(tensor.shape)}")
        mean, std = (self._column(name, values, tensor) for name, values in (("mean", self.mean), ("std", self.std)))
        if self.inplace:
            return tensor.sub_(mean).div_(std)
        return (tensor - mean) / std

    def _column(self, name: str, values: Any, image: Tensor) -> Tensor:
        given = np.atleast_1d(np.asarray(values, np.float64))
        if len(given) not in (1, image.shape[-3]):
            raise ValueError(f"Normalize: expected 1 or {image.shape[-3]} values of {name}, got {len(given)}")
        column: Tensor = tensor(given, dtype=image.dtype, device=image.device).reshape(-1, 1, 1)
        return column

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"
