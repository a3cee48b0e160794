"""The primitives, one file per family: forward and vjp on one screen. Importing this package gives Tensor its methods."""

from kobai.ops import (
    arithmetic,
    create,
    einsum,
    linear,
    pointwise,
    random,
)
