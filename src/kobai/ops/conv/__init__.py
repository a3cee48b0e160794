"""Convolution and its transpose in one, two and three dimensions, with bias and activation in the same pass."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from kobai.core.primitive import primitive
from kobai.core.tensor import Tensor
from kobai.errors import ArgumentError, nearest
from kobai.ops._args import Samples, need_one_dtype, need_tensor
from kobai.ops._epilogue import epilogue
from kobai.ops._windows import Windows, n_windows
from kobai.ops.conv.kernel import channel_sums, convolve, convolve_transposed, weight_gradient
from kobai.xp import Array

__all__ = [
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]

Ints = int | Sequence[int]


def _case(x: Any, weight: Any, bias: bool = True, **options: Any) -> Any:
    n = len(weight) - 2
    plain: dict[str, Any] = {"stride": (1,) * n, "pads": ((0, 0),) * n, "dilation": (1,) * n, "groups": 1}

    def draw(rng: Any) -> tuple[Any, ...]:
        filters = options.get("filters", weight[0])
        rest = {k: v for k, v in options.items() if k != "filters"}
        b = rng.normal(size=filters) if bias else None
        return rng.normal(size=x), rng.normal(size=weight), b, {**plain, **rest}

    return draw


_SAMPLES: Samples = [
    _case((2, 3, 5, 4), (4, 3, 3, 2)),
    _case((2, 3, 5, 6), (4, 3, 3, 2), stride=(2, 1), pads=((1, 1), (0, 1)), dilation=(1, 2)),
    _case((2, 4, 5, 5), (6, 2, 3, 3), stride=(2, 2), pads=((1, 1), (1, 1)), groups=2, activation="tanh"),
    _case((2, 3, 4, 4), (2, 3, 1, 1), False),
    _case((2, 3, 4, 4), (2, 3, 1, 1), stride=(2, 2), activation="sigmoid"),
    _case((3, 5, 4), (3, 1, 2, 2), groups=3),
    _case((2, 3, 7), (2, 3, 3), stride=(2,), pads=((2, 2),), activation="relu"),
    _case((2, 2, 3, 4, 3), (2, 2, 2, 3, 2), pads=((1, 0), (0, 0), (0, 0))),
    _case((0, 3, 5, 4), (4, 3, 3, 2)),
]


@primitive(sample=_SAMPLES)
def _conv(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
    activation: str | None = None,
) -> Any:
    fused = epilogue("conv", activation)
    images = x if x.ndim == weight.ndim else x[None]
    w = windows_of(images.shape[2:], weight.shape[2:], stride, pads, dilation)

    y = convolve(images, weight, w, groups, bias)
    if fused is not None:
        y = fused.apply(y)
    y = y if x.ndim == weight.ndim else y[0]
    result = y if fused is not None else None  # kept only where the derivative is a function of it
    has_bias = bias is not None

    def vjp(dy: Array) -> Any:
        dz = dy if fused is None else fused.backward(dy, result)
        inputs = x
        if x.ndim != weight.ndim:
            dz, inputs = dz[None], x[None]

        return (
            lambda: convolve_transposed(dz, weight, w, groups).reshape(x.shape),
            lambda: weight_gradient(inputs, dz, w, groups, weight.shape),
            (lambda: channel_sums(dz)) if has_bias else None,
        )

    return y, vjp


@lru_cache(maxsize=1024)
def windows_of(
    size: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
) -> Windows:
    """Where the kernel lies on an image of this size."""
    fields = zip(size, kernel, stride, pads, dilation, strict=True)
    return Windows(
        kernel, stride, dilation, pads, size, tuple(n_windows(n, k, s, a + b, d) for n, k, s, (a, b), d in fields)
    )


_TRANSPOSED_SAMPLES: Samples = [
    _case((2, 3, 4, 3), (3, 4, 3, 2), filters=4),
    _case((2, 4, 3, 3), (4, 3, 3, 3), filters=6, stride=(2, 2), pads=((1, 1), (1, 1)), groups=2, extra=(1, 1)),
    _case((3, 4), (3, 2, 3), False, filters=2, stride=(3,), dilation=(2,)),
    _case((0, 3, 4, 3), (3, 4, 3, 2), filters=4),
]


@primitive(sample=_TRANSPOSED_SAMPLES)
def _conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: tuple[int, ...],
    pads: tuple[tuple[int, int], ...],
    dilation: tuple[int, ...],
    groups: int,
    extra: tuple[int, ...] | None = None,
) -> Any:
    images = x if x.ndim == weight.ndim else x[None]
    kernel, out = weight.shape[2:], images.shape[2:]
    size = tuple(
        (n - 1) * s - a - b + d * (k - 1) + 1 + e
        for n, k, s, (a, b), d, e in zip(out, kernel, stride, pads, dilation, extra or (0,) * len(out), strict=True)
    )
    w = Windows(kernel, stride, dilation, pads, size, out)  # of the convolution whose transpose this is
    y = convolve_transposed(images, weight, w, groups)
    if bias is not None:
        y += _along_channels(bias, y.ndim)
    has_bias = bias is not None

    def vjp(dy: Array) -> Any:
        inputs = x
        if x.ndim != weight.ndim:
            dy, inputs = dy[None], x[None]

        return (
            lambda: convolve(dy, weight, w, groups).reshape(x.shape),
            lambda: weight_gradient(dy, inputs, w, groups, weight.shape),
            (lambda: channel_sums(dy)) if has_bias else None,
        )

    return y if x.ndim == weight.ndim else y[0], vjp


def _along_channels(bias: Array, ndim: int) -> Array:
    return bias.reshape(-1, *(1,) * (ndim - 2))


# --- public functions -------------------------------------------------------------------------------------------------

LAYOUT = {1: "L", 2: "H, W", 3: "D, H, W"}


def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
) -> Tensor:
    """As :func:`conv2d` in one dimension: ``input`` (N, C, L) or (C, L), ``weight`` (O, C / groups, k).

    >>> import kobai
    >>> kobai.nn.functional.conv1d(kobai.ones(1, 1, 4), kobai.ones(1, 1, 2))
    tensor([[[2., 2., 2.]]])
    """
    return _checked_conv(1, input, weight, bias, stride, padding, dilation, groups, activation)


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
) -> Tensor:
    """y[n, o, i, j] = f(b[o] + Σ w[o, c, s, t] · x[n, c, i·stride + s·dilation − padding, j·…]): convolution of images.

    (In mathematics' terms a cross-correlation: the kernel is not mirrored.)

    Args:
        input: (N, C, H, W) or (C, H, W).
        weight: (O, C / groups, kH, kW); channels of one group see those of the same group only.
        bias: (O) or None.
        stride, dilation: steps of the kernel over the input, and between the elements that one window takes.
        padding: zeros around the input: a number for each dimension, ``"valid"`` (none) or ``"same"`` (as many as keep
            H and W, an odd one at the end; stride 1 only).
        activation: f, ``"relu"``, ``"sigmoid"``, ``"tanh"`` or None, computed in the result's own memory.

    Returns:
        (N, O, H', W') with H' = ⌊(H + 2 padding − dilation (kH − 1) − 1) / stride⌋ + 1.

    Raises:
        RuntimeError: shapes, dtypes or sizes that do not fit. ValueError: a padding or activation of no known name.

    Fukushima 1980; LeCun et al., "Backpropagation applied to handwritten zip code recognition", 1989.

    >>> import kobai
    >>> kobai.nn.functional.conv2d(kobai.ones(1, 1, 3, 3), kobai.ones(1, 1, 3, 3), padding=1)
    tensor([[[[4., 6., 4.],
              [6., 9., 6.],
              [4., 6., 4.]]]])
    """
    return _checked_conv(2, input, weight, bias, stride, padding, dilation, groups, activation)


def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: str | Ints = 0,
    dilation: Ints = 1,
    groups: int = 1,
    *,
    activation: str | None = None,
) -> Tensor:
    """As :func:`conv2d` in three dimensions: ``input`` (N, C, D, H, W), ``weight`` (O, C / groups, kD, kH, kW).

    >>> import kobai
    >>> kobai.nn.functional.conv3d(kobai.ones(1, 1, 2, 2, 2), kobai.ones(1, 1, 2, 2, 2)).flatten()
    tensor([8.])
    """
    return _checked_conv(3, input, weight, bias, stride, padding, dilation, groups, activation)


def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """As :func:`conv_transpose2d` in one dimension: ``input`` (N, C, L) or (C, L), ``weight`` (C, O / groups, k).

    >>> import kobai
    >>> kobai.nn.functional.conv_transpose1d(kobai.tensor([[[1., 2.]]]), kobai.ones(1, 1, 2), stride=2)
    tensor([[[1., 1., 2., 2.]]])
    """
    return _checked_transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """The transpose of :func:`conv2d`: every element of x adds x · w to a window of y. Enlarges by ``stride``.

    ``input`` (N, C, H, W) or (C, H, W), ``weight`` (C, O / groups, kH, kW), result (N, O, H', W') with
    H' = (H − 1) stride − 2 padding + dilation (kH − 1) + output_padding + 1.

    >>> import kobai
    >>> kobai.nn.functional.conv_transpose2d(kobai.ones(1, 1, 1, 2), kobai.ones(1, 1, 2, 2), stride=2)
    tensor([[[[1., 1., 1., 1.],
              [1., 1., 1., 1.]]]])
    """
    return _checked_transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Ints = 1,
    padding: Ints = 0,
    output_padding: Ints = 0,
    groups: int = 1,
    dilation: Ints = 1,
) -> Tensor:
    """As :func:`conv_transpose2d` in three dimensions: ``weight`` (C, O / groups, kD, kH, kW).

    >>> import kobai
    >>> kobai.nn.functional.conv_transpose3d(kobai.ones(1, 1, 1, 1, 1), kobai.ones(1, 2, 3, 3, 3)).shape
    kobai.Size([1, 2, 3, 3, 3])
    """
    return _checked_transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# --- arguments --------------------------------------------------------------------------------------------------------


def per_dimension(who: str, name: str, value: Any, n: int, least: int = 0, one_for_all: bool = True) -> tuple[int, ...]:
    """One integer for each of ``n`` dimensions, each at least ``least``: from one number for all, or a sequence of n
    (or, ``one_for_all``, of 1).

    Errors: TypeError for what are no integers, or as many as no dimension asks for; RuntimeError for lesser ones.
    """
    if type(value) is int and value >= least:  # what nearly all calls give
        return (value,) * n
    listed = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * n
    listed = listed * n if one_for_all and len(listed) == 1 else listed
    if len(listed) != n or any(isinstance(v, bool) or not hasattr(v, "__index__") for v in listed):
        raise TypeError(f"{who}: expected {name} to be an integer or {n} of them, got {value!r}")
    if any(v < least for v in listed):
        raise RuntimeError(f"{who}: expected {name} >= {least}, got {value!r}")
    return tuple(int(v) for v in listed)


def padding_pairs(
    who: str, padding: Any, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Zeros before and after each dimension, from a number, one for each, ``"valid"`` or ``"same"``."""
    if isinstance(padding, str):
        if padding == "valid":
            return ((0, 0),) * len(kernel)
        if padding != "same":
            raise ValueError(
                f"{who}: expected padding to be 'same', 'valid' or integers, got {padding!r}."
                f"{nearest(padding, ['same', 'valid'])}"
            )
        if any(s != 1 for s in stride):
            raise ArgumentError(f"{who}: padding='same' needs stride 1, got {stride}")
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((p, p) for p in per_dimension(who, "padding", padding, len(kernel)))


def _check_tensors(
    who: str, n: int, input: Any, weight: Any, bias: Any, groups: int, channels_axis: int, filters: str
) -> None:
    need_tensor(who, input, weight)
    if isinstance(groups, bool) or not isinstance(groups, int) or groups < 1:
        raise RuntimeError(f"{who}: expected groups to be a positive integer, got {groups!r}")
    x, w = input._array.shape, weight._array.shape
    if len(w) != n + 2:
        raise RuntimeError(f"{who}: expected weight ({filters}, {', '.join('k' * n)}), got {w}")
    if not w[1 - channels_axis]:
        raise RuntimeError(f"{who}: expected a weight of at least one output channel, got {w}")
    channels = w[channels_axis] * (groups if channels_axis == 1 else 1)
    if len(x) not in (n + 1, n + 2) or x[-n - 1] != channels or w[0] % groups:
        wanted = f"({channels}, {LAYOUT[n]})"
        raise RuntimeError(
            f"{who}: expected input (N, {channels}, {LAYOUT[n]}) or {wanted} for weight {w} with groups={groups}, got {x}"
        )
    out = w[0] if channels_axis == 1 else w[1] * groups
    if bias is not None and bias._array.shape != (out,):
        raise RuntimeError(f"{who}: expected bias ({out},), got {tuple(bias.shape)}")
    need_one_dtype(who, input, weight, bias)


def _checked_conv(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    activation: str | None,
) -> Tensor:
    who = f"conv{n}d"
    _check_tensors(who, n, input, weight, bias, groups, 1, "out_channels, in_channels / groups")
    kernel, image = weight._array.shape[2:], input._array.shape[-n:]
    stride = per_dimension(who, "stride", stride, n, 1)
    dilation = per_dimension(who, "dilation", dilation, n, 1)
    pads = padding_pairs(who, padding, kernel, stride, dilation)
    fits = 0 not in kernel and min(windows_of(image, kernel, stride, pads, dilation).out) > 0
    for size, k, (a, b), d in () if fits else zip(image, kernel, pads, dilation, strict=True):
        if k == 0 or size + a + b < d * (k - 1) + 1:
            raise RuntimeError(
                f"{who}: the kernel of size {d * (k - 1) + 1} does not fit into the padded input of size {size + a + b}"
            )
    return _conv(input, weight, bias, stride=stride, pads=pads, dilation=dilation, groups=groups, activation=activation)


def _checked_transpose(
    n: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Tensor:
    who = f"conv_transpose{n}d"
    _check_tensors(who, n, input, weight, bias, groups, 0, "in_channels, out_channels / groups")
    stride = per_dimension(who, "stride", stride, n, 1)
    dilation = per_dimension(who, "dilation", dilation, n, 1)
    extra = per_dimension(who, "output_padding", output_padding, n)
    pads = tuple((p, p) for p in per_dimension(who, "padding", padding, n))
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise RuntimeError(f"{who}: expected output_padding below stride or dilation, got {output_padding!r}")
    for m, k, s, (a, b), d, e in zip(input.shape[-n:], weight.shape[2:], stride, pads, dilation, extra, strict=True):
        if (m - 1) * s - a - b + d * (k - 1) + 1 + e < 1 or m < 1:
            raise RuntimeError(f"{who}: input of size {m} with padding {padding!r} leaves no output")
    return _conv_transpose(input, weight, bias, stride=stride, pads=pads, dilation=dilation, groups=groups, extra=extra)
