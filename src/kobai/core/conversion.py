"""What a tensor is outside of Kobai: a number, a list, a NumPy array, text, a copy. Attached to Tensor as methods."""

from __future__ import annotations

import warnings
from itertools import chain
from typing import Any

import numpy as np

from kobai import xp as _xp
from kobai.core.grad_mode import state
from kobai.core.primitive import method
from kobai.core.printing import describe, elements
from kobai.core.tensor import Tensor
from kobai.dtypes import get_default_dtype
from kobai.errors import users_line
from kobai.xp import asarray, to_host

# --- numbers and lists --------------------------------------------------------------------------------------------------


def _scalar(who: str, tensor: Tensor) -> Any:
    if tensor._array.size != 1:
        raise RuntimeError(
            f"{who}: expected a tensor of one element, got shape {tuple(tensor.shape)}"
            + ("; use .any() or .all()" if who == "bool" else "")
        )
    return _read(tensor, tensor._array.item())


def _read(tensor: Tensor, value: Any) -> Any:
    """``value``, read from the device of ``tensor``; raises what kernels found wrong there before."""
    if _xp.after_read is not None:
        _xp.after_read(tensor._array)
    return value


@method
def item(self: Tensor) -> Any:
    """The element of a one-element tensor as a Python number (waits for the device)."""
    return _scalar("item", self)


@method
def tolist(self: Tensor) -> Any:
    """Elements as nested Python lists (a number for a tensor without dimensions)."""
    return _read(self, self._array.tolist())


@method
def __bool__(self: Tensor) -> bool:
    return bool(_scalar("bool", self))


@method
def __float__(self: Tensor) -> float:
    return float(_scalar("float", self))


@method
def __int__(self: Tensor) -> int:
    return int(_scalar("int", self))


@method
def __index__(self: Tensor) -> int:
    if self._array.dtype.kind not in "iub":
        raise TypeError(f"index: expected an integer tensor, got {self.dtype}")
    return int(_scalar("index", self))


# --- arrays -------------------------------------------------------------------------------------------------------------


@method
def numpy(self: Tensor, *, force: bool = False) -> np.ndarray[Any, Any]:
    """The elements as a NumPy array sharing memory. ``force=True`` also detaches and copies from a device.

    A tensor that requires a gradient needs it, or ``no_grad()``, where nothing is recorded anyway.
    """
    if not force:
        if self.requires_grad and state.grad:
            raise RuntimeError("numpy: this tensor requires a gradient; use tensor.detach().numpy()")
        if self.device.type != "cpu":
            raise TypeError(f"numpy: this tensor is on {self.device}; use tensor.cpu().numpy()")
    return np.asarray(to_host(self._array))


@method
def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
    host = numpy(self)
    if dtype is not None and host.dtype != dtype:
        if copy is False:
            raise ValueError(f"__array__: a copy is needed to convert {host.dtype} to {dtype}")
        return host.astype(dtype)
    return host.copy() if copy else host


@method
def __array_wrap__(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Tensor:
    return Tensor._wrap(asarray(array))  # type: ignore[no-any-return]  # numpy.exp(tensor) is a Tensor, as in PyTorch


@method
def __dlpack__(self: Tensor, **kwargs: Any) -> Any:
    if self.requires_grad:
        raise BufferError("__dlpack__: this tensor requires a gradient; use tensor.detach()")
    return self._array.__dlpack__(**kwargs)


@method
def __dlpack_device__(self: Tensor) -> Any:
    return self._array.__dlpack_device__()


@method
def __deepcopy__(self: Tensor, memo: dict[int, Any]) -> Any:
    if id(self) in memo:
        return memo[id(self)]
    if not self.is_leaf:
        raise RuntimeError("deepcopy: only leaf tensors can be copied deeply; use detach().clone()")
    out = type(self)._wrap(self._array.copy())
    memo[id(self)] = out
    out._requires_grad = self._requires_grad
    if self._grad is not None:
        out._grad = Tensor._wrap(self._grad._array.copy())
    out.__dict__.update(attributes(self))
    return out


def attributes(tensor: Tensor) -> dict[str, Any]:
    """What the user has set on a tensor, which travels along with copies of it."""
    return {name: value for name, value in everything(tensor).items() if name not in Tensor.__annotations__}


everything: Any = vars(Tensor)["__dict__"].__get__
"""What Python keeps of a tensor, elements and history too; a subclass's ``__dict__`` has what was set on it alone."""


@method
def __copy__(self: Tensor) -> Any:
    out = object.__new__(type(self))
    everything(out).update(everything(self))  # the same memory, hence the same count of in-place changes
    return out


@method
def __reduce_ex__(self: Tensor, protocol: Any) -> Any:
    """For pickle: the elements, their device, whether a gradient is wanted, and what the user has set.

    As in PyTorch the gradient, the history and the hooks stay behind: what was computed comes back as a leaf. Unlike there
    a view brings its own elements only, not those of the memory that it views.
    """
    for hook in chain((self._hooks or {}).values(), (self._accumulate_hooks or {}).values()):
        warnings.warn(
            f"pickle: the hook {hook!r} of a tensor is not pickled with it", UserWarning, stacklevel=users_line()
        )
    leaf = str(self.device), self.requires_grad
    return _unpickled, (type(self), to_host(self._array), *leaf), attributes(self)


def _unpickled(kind: type[Tensor], elements: np.ndarray, where: str, requires_grad: bool) -> Any:
    """The tensor that :func:`__reduce_ex__` took apart, on the device where it was."""
    return kind._wrap(asarray(elements, device=where), requires_grad)


# --- text ---------------------------------------------------------------------------------------------------------------


@method
def __format__(self: Tensor, spec: str) -> str:
    # As in PyTorch a tensor without dimensions is formatted as the number it holds: f"{loss:.3f}", f"{loss}".
    if type(self) is Tensor and self._array.ndim == 0:
        return format(self._array.item(), spec)
    return object.__format__(self, spec)


@method
def _repr_html_(self: Tensor) -> str:
    from kobai.core.markup import tag
    from kobai.core.notebook import frame

    host = to_host(self.detach()._array)
    facts = [f"{self.dtype}", str(list(self.shape)), str(self.device)]
    if self.requires_grad:
        facts.append("requires_grad" if self.grad_fn is None else f"{self.grad_fn!r}")
    if host.size > 1 and self.is_floating_point():
        finite = host[np.isfinite(host)].astype(np.float64)
        if finite.size:
            facts.append(f"from {finite.min():.4g} to {finite.max():.4g}, mean {finite.mean():.4g}")
        if finite.size < host.size:
            facts.append(f"{host.size - finite.size:,} not finite")
    title = tag("span", " · ".join(facts), class_="quiet")
    return frame(tag("b", type(self).__name__), " ", title, tag("pre", elements(host, indent=0)))


@method
def __repr__(self: Tensor) -> str:
    notes = []
    host = to_host(self._array)
    if host.dtype not in (get_default_dtype(), np.dtype(np.int64), np.dtype(np.bool_)) or (
        host.size == 0 and host.dtype != get_default_dtype()
    ):
        notes.append(f"dtype=kobai.{host.dtype}")
    if host.size == 0 and host.shape != (0,):
        notes.insert(0, f"size={tuple(host.shape)}")
    if self.device.type != "cpu":
        notes.append(f"device='{self.device}'")
    if self.grad_fn is not None:
        notes.append(f"grad_fn={self.grad_fn!r}")
    elif self._requires_grad:
        notes.append("requires_grad=True")
    return describe(host, notes)
