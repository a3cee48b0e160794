"""Loss scaling: gradients too small for float16 are made large, and steps whose gradients overflowed are skipped.

::

    scale(loss).backward()     s·L; the gradients are s times as large
    unscale_(optimizer)        g ← g / s; found ← 1 if any g is not finite, else 0
    step(optimizer)            parameters, state and counts stay as they are where found ≠ 0
    update()                   s ← s·backoff where found ≠ 0; s ← s·growth after every so many steps without

Scale, counter and ``found`` are tensors beside the gradients, and the host reads none of them: neither in an eager step nor
in a captured one. What the host knows – which optimizer is at which of these stages – moves on at every replay, too.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from kobai import xp
from kobai.core.tensor import Tensor
from kobai.engine import dispatch
from kobai.engine.cuda_kernel import EVERY_FLOAT, CudaKernel
from kobai.errors import users_line
from kobai.formula.cuda_code import address_table
from kobai.formula.elementwise import elementwise
from kobai.formula.many import Many, dtype_of_numbers
from kobai.nn.utils._clip import CUDA_BLOCKS, TABLE, TABLE_IN_C, TENSORS, scale as multiply
from kobai.nn.utils.parameters import _alike
from kobai.xp import Array, asarray, device_of, xp_of

__all__ = ["GradScaler"]

LARGEST = float(np.finfo(np.float32).max)


@elementwise
def updated(scale: Any, steps: Any, found: Any, *, growth: Any, backoff: Any, interval: Any) -> Any:
    """s ← s·backoff and t ← 0 where ``found``; else t ← t + 1, and at t = interval s ← s·growth and t ← 0"""
    steps = steps + 1
    due = steps == interval
    grown = growth * scale
    grown = grown if grown <= LARGEST else scale
    steps = 0.0 if due else steps
    steps = 0.0 if found != 0 else steps
    grown = grown if due else scale
    scale = backoff * scale if found != 0 else grown
    return scale, steps


class GradScaler:
    """Scales losses, so that small gradients survive float16, and skips steps whose gradients overflowed.

    The scale s begins with ``init_scale``. ``step`` divides the gradients by it; if one is not finite, the optimizer's
    parameters, state and step counts stay as they are, and ``update`` makes s ← s · ``backoff_factor``. After
    ``growth_interval`` steps in a row without that, s ← s · ``growth_factor``. Works on the CPU and on CUDA, eagerly and in
    captured steps, and the host reads nothing back; only an optimizer that brings its own ``step`` is not called where it
    must be skipped, for which ``found`` is read.

    Arguments:
        device: ``"cuda"`` or ``"cpu"``; for CUDA on a machine without it the scaler is switched off, with a warning.
        init_scale, growth_factor, backoff_factor, growth_interval: see above.
        enabled: False leaves losses as they are and steps as ``optimizer.step()`` does.

    An optimizer that has been stepped by a scaler keeps its counts (``state[p]["step"]``) in tensors of no dimension.

    Micikevicius et al., *Mixed precision training*, ICLR 2018.

    >>> import kobai
    >>> w = kobai.tensor([1.0], requires_grad=True)
    >>> optimizer = kobai.optim.SGD([w], lr=0.25)
    >>> scaler = kobai.amp.GradScaler("cpu", init_scale=8.0)
    >>> for x in (1.0, kobai.inf):
    ...     optimizer.zero_grad()
    ...     scaler.scale((w * x).sum()).backward()
    ...     scaler.step(optimizer)
    ...     scaler.update()
    ...     print(w.item(), scaler.get_scale())
    0.75 8.0
    0.75 4.0
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        if enabled and xp.device(device).type == "cuda" and xp.available_backends()["cupy"]:
            warnings.warn("GradScaler: CUDA is not available, so loss scaling is switched off", stacklevel=users_line())
            enabled = False
        if enabled and not (growth_factor > 1 and backoff_factor < 1):
            raise AssertionError(
                f"GradScaler: expected growth_factor > 1 and backoff_factor < 1, got {growth_factor} and {backoff_factor}"
            )
        self._enabled = enabled
        self._init_scale, self._init_steps = float(init_scale), 0
        self._growth_factor, self._backoff_factor, self._growth_interval = (
            growth_factor,
            backoff_factor,
            growth_interval,
        )
        self._scale: Tensor | None = None
        self._steps: Tensor | None = None  # in a row whose gradients were finite
        self._checks: dict[int, _Check] = {}

    def _capture_watch(self, walk: Any) -> None:
        """A replay writes into these tensors; the factors are looked up anew, and the stages moved on."""
        walk.attributes(self, ("_enabled", "_scale", "_steps"))

    # --- a step

    def scale(self, outputs: Any) -> Any:
        """``outputs`` – a tensor, or an iterable of such – times the scale."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            if self._scale is None:
                self._make(outputs)
            return outputs * self._beside(outputs)
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            if isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
                return type(outputs)(*scaled)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled
        raise ValueError(f"GradScaler.scale: expected a Tensor or an iterable of Tensors, got {type(outputs).__name__}")

    def unscale_(self, optimizer: Any) -> None:
        """Divide the optimizer's gradients by the scale, in place: to clip them, or to look at them, before ``step``.

        Errors: RuntimeError for a second call before ``update``; ValueError for gradients in float16.
        """
        if not self._enabled:
            return
        scale, check = self._need("unscale_"), self._check(optimizer)
        grads = [p._grad for group in optimizer.param_groups for p in group["params"] if p._grad is not None]
        if any(g._array.dtype == np.float16 for g in grads):
            raise ValueError(
                "GradScaler.unscale_: expected gradients in float32, got float16; keep the parameters in float32 and compute "
                "under autocast"
            )
        dispatch.on_host(_Turn("unscale_", [check], READY, UNSCALED))
        by_place: dict[Any, list[Tensor]] = {}
        for g in grads:
            by_place.setdefault(device_of(g._array), []).append(g)
        check.here = list(by_place)
        for place, some in by_place.items():
            with _on(place):
                found = check.found.get(place)
                if found is None:
                    found = check.found[place] = Tensor._wrap(xp_of(some[0]._array).zeros(1, np.float64))
                    _postpone()
                found._array[...] = 0.0
                inverse = 1.0 / asarray(scale._array, np.float64, place).reshape(1)
                for arrays in _alike(some):
                    _unscale(arrays, inverse.astype(np.float32), found._array)
                found._bump()
            for g in some:
                g._bump()

    def step(self, optimizer: Any, *args: Any, **kwargs: Any) -> Any:
        """``unscale_``, unless it has been called, and ``optimizer.step(*args, **kwargs)``, unless a gradient is not finite.

        Errors: RuntimeError for a closure, or a second call before ``update``; AssertionError if no parameter has a gradient.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs or args:
            raise RuntimeError("GradScaler.step: a closure cannot be used with an enabled scaler")
        self._need("step")
        check = self._check(optimizer)
        if check.stage == READY:
            self.unscale_(optimizer)
        if check.stage == UNSCALED and not check.here:
            raise AssertionError("GradScaler.step: no parameter of the optimizer has a gradient")
        dispatch.on_host(_Turn("step", [check], UNSCALED, STEPPED))
        found = self._found([check])
        from kobai.optim.optimizer import Optimizer  # comes with its first use, as do all optimizers

        if type(optimizer).step is not Optimizer.step and not getattr(optimizer, "_step_supports_amp_scaling", False):
            return None if found.item() else optimizer.step(**kwargs)
        optimizer.found_inf = found
        try:
            return optimizer.step(**kwargs)
        finally:
            del optimizer.found_inf

    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Adapt the scale to what was found since the last call, or set it to ``new_scale``.

        Errors: AssertionError if no gradients were looked at, or ``new_scale`` is not one number without gradient.
        """
        if not self._enabled:
            return
        scale, checked = self._need("update"), [c for c in self._checks.values() if c.stage and c.here]
        if new_scale is not None:
            if isinstance(new_scale, Tensor) and (new_scale.numel() != 1 or new_scale.requires_grad):
                raise AssertionError("GradScaler.update: expected new_scale as one number that requires no gradient")
            scale._array[...] = new_scale._array.reshape(()) if isinstance(new_scale, Tensor) else float(new_scale)
        else:
            if not checked:
                raise AssertionError("GradScaler.update: no gradients were looked at since the last update()")
            assert self._steps is not None
            found, wide = self._found(checked), scale._array.astype(np.float64).reshape(1)
            with _on(device_of(wide)):
                found = asarray(found._array, device=device_of(wide))
                factors = dispatch.numbers(self._factors, np.dtype(np.float64))
                dispatch.launch(Many(updated, 1), wide, self._steps._array.reshape(1), found, factors)
                scale._array[...] = wide.reshape(())
                self._steps._bump()
        scale._bump()
        dispatch.on_host(_Turn("update", list(self._checks.values()), "", READY))

    def _make(self, like: Tensor) -> None:
        """Scale and counter, on the device of ``like``."""
        with _on(like.device):
            full = xp_of(like._array).full
            self._scale = Tensor._wrap(full((), self._init_scale, np.float32))
            self._steps = Tensor._wrap(full((), self._init_steps, np.float64))
        _postpone()

    def _beside(self, tensor: Tensor) -> Tensor:
        assert self._scale is not None
        return self._scale.to(tensor.device) if xp.many_devices else self._scale

    def _need(self, who: str) -> Tensor:
        if self._scale is None:
            raise AssertionError(f"GradScaler.{who}: nothing has been scaled yet; call scale(loss).backward() before")
        if (at_work := xp.recorder()) is not None:
            at_work.touch(self)
        return self._scale

    def _check(self, optimizer: Any) -> _Check:
        check = self._checks.get(id(optimizer))
        if check is None or check.optimizer() is not optimizer:
            self._checks = {key: known for key, known in self._checks.items() if known.optimizer() is not None}
            check = self._checks[id(optimizer)] = _Check(optimizer)
        return check

    def _found(self, checks: Sequence[_Check]) -> Tensor:
        """Not 0 if a gradient was not finite, on any device."""
        first, *others = [check.found[place] for check in checks for place in check.here]
        if not others:
            return first
        with _on(first.device):
            total = first._array
            for other in others:
                total = total + asarray(other._array, device=first.device)
            return Tensor._wrap(total)  # type: ignore[no-any-return]

    def _factors(self) -> tuple[float, ...]:
        return float(self._growth_factor), float(self._backoff_factor), float(self._growth_interval)

    # --- its settings

    def get_scale(self) -> float:
        """The scale; 1 if the scaler is switched off. Waits for the device."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(self._scale.item())

    def get_growth_factor(self) -> float:
        """The factor by which the scale grows."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale grows."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """The factor by which the scale shrinks."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set the factor by which the scale shrinks."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many steps the scale grows."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many steps the scale grows."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return self._init_steps if self._steps is None else int(self._steps.item())

    def is_enabled(self) -> bool:
        """Whether losses are scaled."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Scale, factors, interval and the steps since the scale last changed; empty if the scaler is switched off."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state of :meth:`state_dict`, ours or PyTorch's; a scaler that is switched off ignores it.

        Errors: RuntimeError for an empty one, which a scaler that was switched off has saved.
        """
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "GradScaler.load_state_dict: the state is empty; the scaler that saved it was switched off"
            )
        self._init_scale, self._init_steps = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        for tensor, value in ((self._scale, self._init_scale), (self._steps, self._init_steps)):
            if tensor is not None:
                tensor._array[...] = value
                tensor._bump()

    def __getstate__(self) -> dict[str, Any]:
        if any(check.stage != READY for check in self._checks.values()):
            raise AssertionError("GradScaler: it can be pickled or copied after update(), not within a step")
        now = {"_init_scale": self.get_scale(), "_init_steps": self._get_growth_tracker()} if self._enabled else {}
        return {**self.__dict__, **now, "_scale": None, "_steps": None, "_checks": {}}


# --- the stages of an optimizer ---------------------------------------------------------------------------------------

READY, UNSCALED, STEPPED = "", "unscale_", "step"


class _Check:
    """What a scaler knows of one optimizer: how far this step is, and what was found in the gradients, on each device."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.stage = READY
        self.found: dict[Any, Tensor] = {}
        self.here: list[Any] = []
        """Devices whose gradients were looked at last."""


class _Turn(dispatch.Count):
    """Moves optimizers from one stage to the next, in the step and in each replay of it."""

    def __init__(self, who: str, checks: list[_Check], before: str, after: str) -> None:
        self.who, self.checks, self.before, self.after = who, checks, before, after

    def __call__(self) -> None:
        for check in self.checks if self.after != READY else ():
            if check.stage != self.before:
                raise RuntimeError(
                    f"GradScaler.{self.who}: {check.stage or 'update'}() has been called for this "
                    f"{type(check.optimizer()).__name__} already since the last update()"
                )
        for check in self.checks:
            check.stage = self.after

    def save(self) -> list[str]:
        return [check.stage for check in self.checks]

    def restore(self, saved: list[str]) -> None:
        for check, stage in zip(self.checks, saved, strict=True):
            check.stage = stage


def _postpone() -> None:
    if (at_work := xp.recorder()) is not None:
        at_work.postpone()


def _on(place: Any) -> AbstractContextManager[Any]:
    return xp.on(place) if xp.many_devices else nullcontext()


# --- dividing gradients -----------------------------------------------------------------------------------------------


def _unscale(arrays: list[Array], inverse: Array, found: Array) -> None:
    """g ← g · inverse, and found ← 1 if any g is not finite; the arrays are of one library and dtype."""
    first = arrays[0]
    if type(first) in dispatch.HOST_TYPES:
        dispatch.launch(_look, *arrays, found)
        multiply(arrays, inverse.astype(dtype_of_numbers(first.dtype), copy=False))
    elif dispatch.engine_for(arrays, halves=True):
        for start in range(0, len(arrays), TENSORS):
            some = arrays[start : start + TENSORS]
            args = address_table(TABLE, [some]), inverse, found
            dispatch.launch(UNSCALE.of(first.dtype), (CUDA_BLOCKS, len(some)), args)
    else:
        here = xp_of(first)
        for g in arrays:
            here.maximum(found, here.logical_not(here.isfinite(g).all()), out=found)
            here.multiply(g, inverse.astype(g.dtype, copy=False), out=g)


@xp.quiet
def _look(*arrays_and_found: Array) -> None:
    """NaN and infinity go through the extremes, which need no memory of their own."""
    *arrays, found = arrays_and_found
    for g in arrays:
        if g.size and not (np.isfinite(g.max()) and np.isfinite(g.min())):
            found[...] = 1.0
            return


UNSCALE = CudaKernel(
    "unscale",
    "Table table, const float* inverse, double* found",
    """
    T* g = table.at[0][blockIdx.y];
    const A factor = (A)inverse[0];
    bool bad = false;
    EACH(i, table.size[blockIdx.y]) {
        const A x = (A)g[i];
        bad = bad || !(x - x == 0);
        g[i] = (T)(x * factor);
    }
    if (bad) *found = 1.0;
    """,
    prelude=TABLE_IN_C,
    dtypes=EVERY_FLOAT,
    structs={"Table": TABLE},
)
