"""``kobai.amp``: mixed precision. What is cast, and where, is in ``core/autocast.py``."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar

from kobai import xp
from kobai.core import autocast as precision
from kobai.core.tensor import Tensor
from kobai.dtypes import HALVES, _of, dtype
from kobai.errors import users_line
from kobai.grad_scaler import GradScaler
from kobai.xp import device

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

F = TypeVar("F", bound=Callable[..., Any])


class autocast:  # PyTorch's spelling
    """Block, or decorator, in which PyTorch's lists say what operations on such a device compute in.

    Matrix products and convolutions compute in ``dtype`` (float16 or bfloat16; by default float16 on CUDA, bfloat16 on the
    CPU), losses – on CUDA also sums, exponentials and normalisations – in float32, everything else in the dtype that comes.
    Parameters stay float32, and so do their gradients; a parameter is rounded once in an outermost block, unless
    ``cache_enabled`` is False. Backward computes as forward did, in the block or after it. A block holds for its thread,
    blocks nest, and ``enabled=False`` switches an outer one off.

    On the CPU the numbers are rounded as on a GPU and the arithmetic between is float32, which takes longer than without:
    it shows what 16 bits do to a training.

    Errors: ValueError for a device type that is not a string. Without CUDA a block for it warns and does nothing, as does one
    of another dtype.

    Lists: https://docs.pytorch.org/docs/stable/amp.html#autocast-op-reference

    >>> import kobai
    >>> layer = kobai.nn.Linear(2, 2)
    >>> with kobai.autocast("cpu"):
    ...     y = layer(kobai.ones(1, 2))
    ...     loss = kobai.nn.functional.mse_loss(y, kobai.zeros(1, 2))
    >>> loss.backward()
    >>> y.dtype, loss.dtype, layer.weight.grad.dtype
    (kobai.bfloat16, kobai.float32, kobai.float32)
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(f"autocast: expected a device type such as 'cpu' or 'cuda', got {device_type!r}")
        self.device, self.enabled = device(device_type).type, bool(enabled)
        self.fast_dtype = _of(precision.preferred(self.device) if dtype is None else dtype)
        self._cache_enabled = cache_enabled
        if self.enabled and self.device == "cuda" and xp.available_backends()["cupy"]:
            warnings.warn(
                "autocast: CUDA is not available, so mixed precision on it is switched off", stacklevel=users_line()
            )
            self.enabled = False
        if self.enabled and self.fast_dtype.dtype not in HALVES:
            warnings.warn(
                f"autocast: expected float16 or bfloat16, got {self.fast_dtype}; mixed precision is switched off",
                stacklevel=users_line(),
            )
            self.enabled = False

    def __enter__(self) -> autocast:
        """Begin the block."""
        caching = precision.state.caching if self._cache_enabled is None else bool(self._cache_enabled)
        precision.enter(self.device, self.fast_dtype if self.enabled else None, self.fast_dtype, caching)
        return self

    def __exit__(self, *error: object) -> None:
        """End it; the rounded copies of parameters are let go of with the outermost block."""
        precision.leave()

    def __call__(self, function: F) -> F:
        """``function``, which runs in such a block."""

        @wraps(function)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return inside  # type: ignore[return-value]


def is_autocast_available(device_type: str) -> bool:
    """Whether there is mixed precision on this type of device: on each that Kobai knows.

    >>> import kobai
    >>> kobai.amp.is_autocast_available("cpu")
    True
    """
    try:
        device(device_type)
    except ValueError:
        return False
    return True


def is_autocast_enabled(device_type: str | None = None) -> bool:
    """Whether operations on this type of device – CUDA unless given – are cast here.

    >>> import kobai
    >>> with kobai.autocast("cpu"):
    ...     kobai.is_autocast_enabled("cpu"), kobai.is_autocast_enabled()
    (True, False)
    """
    return device(device_type or "cuda").type in precision.state.dtypes


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Switch autocast on this type of device on or off for this thread, until the block that is open ends.

    >>> import kobai
    >>> with kobai.autocast("cpu"):
    ...     kobai.set_autocast_enabled("cpu", False)
    ...     kobai.is_autocast_enabled("cpu")
    False
    """
    name = device(device_type).type
    precision.put(name, precision.preferred(name) if enabled else None)


def get_autocast_dtype(device_type: str) -> dtype:
    """The dtype of ``autocast`` on this type of device where none is given.

    >>> import kobai
    >>> kobai.get_autocast_dtype("cpu"), kobai.get_autocast_dtype("cuda")
    (kobai.bfloat16, kobai.float16)
    """
    return _of(precision.preferred(device(device_type).type))


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Choose the dtype that :func:`get_autocast_dtype` gives in this thread, until the block that is open ends.

    >>> import kobai
    >>> with kobai.autocast("cpu"):
    ...     kobai.set_autocast_dtype("cpu", kobai.float16)
    ...     kobai.nn.Linear(2, 2)(kobai.ones(1, 2)).dtype
    kobai.float16
    """
    name, chosen = device(device_type).type, _of(dtype).dtype
    if chosen not in HALVES:
        raise RuntimeError(f"set_autocast_dtype: expected float16 or bfloat16, got {chosen}")
    precision.state.preferred = {**precision.state.preferred, name: chosen}
    if name in precision.state.dtypes:
        precision.put(name, chosen)


def is_autocast_cpu_enabled() -> bool:
    """``is_autocast_enabled("cpu")``, as it was once called.

    >>> import kobai
    >>> kobai.is_autocast_cpu_enabled()
    False
    """
    return is_autocast_enabled("cpu")


def set_autocast_cpu_enabled(enabled: bool) -> None:
    """``set_autocast_enabled("cpu", enabled)``, as it was once called.

    >>> import kobai
    >>> kobai.set_autocast_cpu_enabled(False)
    """
    set_autocast_enabled("cpu", enabled)


def get_autocast_cpu_dtype() -> dtype:
    """``get_autocast_dtype("cpu")``, as it was once called.

    >>> import kobai
    >>> kobai.get_autocast_cpu_dtype()
    kobai.bfloat16
    """
    return get_autocast_dtype("cpu")


def set_autocast_cpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cpu", dtype)``, as it was once called.

    >>> import kobai
    >>> kobai.set_autocast_cpu_dtype(kobai.bfloat16)
    """
    set_autocast_dtype("cpu", dtype)


def get_autocast_gpu_dtype() -> dtype:
    """``get_autocast_dtype("cuda")``, as it was once called.

    >>> import kobai
    >>> kobai.get_autocast_gpu_dtype()
    kobai.float16
    """
    return get_autocast_dtype("cuda")


def set_autocast_gpu_dtype(dtype: Any) -> None:
    """``set_autocast_dtype("cuda", dtype)``, as it was once called.

    >>> import kobai
    >>> kobai.set_autocast_gpu_dtype(kobai.float16)
    """
    set_autocast_dtype("cuda", dtype)


def is_autocast_cache_enabled() -> bool:
    """Whether a parameter's copy in 16 bits serves for the rest of an outermost block.

    >>> import kobai
    >>> kobai.is_autocast_cache_enabled()
    True
    """
    return precision.state.caching


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Whether a parameter's copy in 16 bits serves for the rest of an outermost block, in this thread.

    >>> import kobai
    >>> kobai.set_autocast_cache_enabled(True)
    """
    precision.state.caching = bool(enabled)


def clear_autocast_cache() -> None:
    """Let go of the copies of parameters in 16 bits: the next use rounds them again.

    >>> import kobai
    >>> kobai.clear_autocast_cache()
    """
    precision.state.cache.clear()


def custom_fwd(fwd: Any = None, *, device_type: str, cast_inputs: Any = None) -> Any:
    """Decorator of a :class:`kobai.autograd.Function`'s ``forward``, for use under autocast.

    With ``cast_inputs`` float arguments on this type of device (but float64) are cast to it, and inside autocast is off;
    outside of autocast nothing is cast. Without, ``forward`` runs as the block says. Its ``backward`` wants
    :func:`custom_bwd`.

    >>> import kobai
    >>> class Product(kobai.autograd.Function):
    ...     @staticmethod
    ...     @kobai.amp.custom_fwd(device_type="cpu", cast_inputs=kobai.float32)
    ...     def forward(ctx, a, b):
    ...         ctx.save_for_backward(a, b)
    ...         return a @ b
    ...     @staticmethod
    ...     @kobai.amp.custom_bwd(device_type="cpu")
    ...     def backward(ctx, dy):
    ...         a, b = ctx.saved_tensors
    ...         return dy @ b.t(), a.t() @ dy
    >>> with kobai.autocast("cpu"):
    ...     Product.apply(kobai.eye(2), kobai.eye(2).bfloat16()).dtype
    kobai.float32
    """
    if fwd is None:
        return partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    name = device(device_type).type

    @wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        on = is_autocast_enabled(name)
        ctx._dtype = get_autocast_dtype(name)
        ctx._fwd_used_autocast = on and cast_inputs is None
        if not on or cast_inputs is None:
            return fwd(ctx, *args, **kwargs)
        with autocast(name, enabled=False):
            return fwd(ctx, *_cast(args, name, cast_inputs), **_cast(kwargs, name, cast_inputs))

    return forward


def custom_bwd(bwd: Any = None, *, device_type: str) -> Any:
    """Decorator of the ``backward`` beside a :func:`custom_fwd`: it runs under autocast if ``forward`` did, in its dtype.

    The example is there.
    """
    if bwd is None:
        return partial(custom_bwd, device_type=device_type)
    name = device(device_type).type

    @wraps(bwd)
    def backward(ctx: Any, *args: Any) -> Any:
        with autocast(name, ctx._dtype, ctx._fwd_used_autocast):
            return bwd(ctx, *args)

    return backward


def _cast(value: Any, device_type: str, to: Any) -> Any:
    """The floats in ``value`` that are on this type of device in another dtype."""
    if isinstance(value, Tensor):
        fits = value.device.type == device_type and value.array.dtype in precision.CASTABLE
        return precision.cast(value, to) if fits else value
    if isinstance(value, dict):
        return {key: _cast(part, device_type, to) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_cast(part, device_type, to) for part in value)
    return value
