"""L-BFGS: a quasi-Newton method for smooth, full-batch problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from kobai.core.grad_mode import enable_grad
from kobai.core.tensor import Tensor
from kobai.optim.groups import Group, Params, learning_rate, non_negative, number, options
from kobai.optim.optimizer import Optimizer, State
from kobai.xp import Array, asarray, write, xp_of

_SCALARS = ("t", "ro", "al", "H_diag", "prev_loss", "func_evals", "n_iter")
_VECTORS = ("d", "old_dirs", "old_stps", "prev_flat_grad")


class LBFGS(Optimizer):
    """Limited-memory BFGS: steps along −H g, where H approximates the inverse Hessian by the last changes of g.

    One ``step(closure)`` makes up to ``max_iter`` iterations, each of which calls the closure, which must set the
    gradients to zero, compute the loss, call ``backward()`` and return the loss. With sₖ the changes of the parameters,
    yₖ those of the gradient and ρₖ = 1/(yₖᵀsₖ), H g is found from the last ``history_size`` pairs by the two-loop
    recursion, starting from H₀ = sᵀy/yᵀy of the newest.

    All parameters are one vector here, so there is one parameter group. The host reads the loss in every iteration.

    Arguments:
        params: tensors, or one group dict.
        lr: length t of a step along −H g (the first one has t = min(1, 1/‖g‖₁)·lr).
        max_iter, max_eval: most iterations, and most calls of the closure (None: 1.25 · max_iter), in one ``step``.
        tolerance_grad, tolerance_change: stop when the largest |g|, or the change of parameters or loss, is smaller.
        history_size: pairs to remember.
        line_search_fn: None, or ``"strong_wolfe"``: search t such that the loss falls enough and its slope flattens.

    State (of the first parameter, with PyTorch's names): ``func_evals`` and ``n_iter`` count; ``old_stps`` and ``old_dirs``
    hold the sₖ and yₖ, ``ro`` the ρₖ, ``al`` the αₖ of the last recursion, ``H_diag`` is H₀; ``t`` and ``d`` are the last step
    and its direction, ``prev_flat_grad`` and ``prev_loss`` gradient and loss before it. Vectors are as long as all parameters.

    Nocedal, Wright, *Numerical Optimization*, 2nd edition 2006, algorithms 7.4 (direction), 3.5 and 3.6 (line search).

    >>> import kobai
    >>> w = kobai.tensor([3.0, -2.0], requires_grad=True)
    >>> optimizer = kobai.optim.LBFGS([w], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = ((w - 1) ** 4).sum()
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(5):
    ...     loss = optimizer.step(closure)
    >>> closure().item() < 1e-6
    True
    """

    _ranges: ClassVar = non_negative("lr")

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError(f"LBFGS: expected line_search_fn None or 'strong_wolfe', got {line_search_fn!r}")
        max_eval = max_iter * 5 // 4 if max_eval is None else max_eval
        super().__init__(params, options(locals()))

    def add_param_group(self, param_group: Group) -> None:
        """As in every optimiser, but only one group: all parameters are one vector."""
        if self.param_groups:
            raise ValueError("LBFGS: expected one parameter group, since all parameters move together")
        super().add_param_group(param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Up to ``max_iter`` iterations; returns the loss before the first."""
        if closure is None:
            raise TypeError("LBFGS.step: expected a closure that computes loss and gradients and returns the loss")
        group = self.param_groups[0]
        lr, most = learning_rate(group), group["history_size"]
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)

        def evaluate() -> tuple[Any, float, Array]:
            with enable_grad():
                loss = closure()
            state["func_evals"] += 1
            return loss, float(loss), self._gradient()

        first, loss, g = evaluate()
        evaluations = 1
        xp = xp_of(g)
        for iteration in range(1, group["max_iter"] + 1):
            if _number(xp.abs(g).max()) <= group["tolerance_grad"]:
                break
            state["n_iter"] += 1
            if "d" not in state:
                state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
                direction, t = -g, min(1.0, 1.0 / _number(xp.abs(g).sum())) * lr
            else:
                _remember(state, state["t"] * state["d"].array, g - state["prev_flat_grad"].array, most)
                direction, used = _direction(g, state)
                state["al"] = used + [None] * (most - len(used))
                t = lr
            before = loss
            state.update(d=Tensor._wrap(direction), t=t, prev_flat_grad=Tensor._wrap(g), prev_loss=before)
            slope = _number(g @ direction)
            if slope > -group["tolerance_change"]:
                break
            del state["d"]  # if a closure fails, the parameters are in between: the next step starts without memory
            start = self._flat()

            def at(t: float, start: Array = start, direction: Array = direction) -> tuple[float, float, Array]:
                self._write(start + t * direction)
                _, value, gradient = evaluate()
                return value, _number(gradient @ direction), gradient

            if group["line_search_fn"] is not None:
                longest, left = _number(xp.abs(direction).max()), group["max_eval"] - evaluations
                here, tolerance = _Point(0.0, loss, slope, g), group["tolerance_change"]
                found, calls = _strong_wolfe(at, t, here, longest, tolerance, left)
                t, loss, _, g = found
                self._write(start + t * direction)
                evaluations += calls
            elif iteration < group["max_iter"]:
                loss, _, g = at(t)
                evaluations += 1
            else:  # the next step() begins by looking there
                self._write(start + t * direction)
            state.update(d=Tensor._wrap(direction), t=t)
            if (
                evaluations >= group["max_eval"]
                or _number(xp.abs(t * direction).max()) <= group["tolerance_change"]
                or abs(loss - before) < group["tolerance_change"]
            ):
                break
        return first

    def _parameters(self) -> list[Tensor]:
        params: list[Tensor] = self.param_groups[0]["params"]
        return params

    def _flat(self) -> Array:
        arrays = [p.array.reshape(-1) for p in self._parameters()]
        return xp_of(arrays[0]).concatenate(arrays)

    def _gradient(self) -> Array:
        parts = [(p.grad.array if p.grad is not None else 0 * p.array).reshape(-1) for p in self._parameters()]
        return xp_of(parts[0]).concatenate(parts)

    def _write(self, flat: Array) -> None:
        at = 0
        for p in self._parameters():
            write(p.array, flat[at : at + p.numel()].reshape(p.array.shape))
            p._bump()
            at += p.numel()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As in every optimiser; also reads states that Kobai saved before it took over PyTorch's names."""
        states = {key: _renamed(state) for key, state in state_dict.get("state", {}).items()}
        super().load_state_dict({**state_dict, "state": states} if states else state_dict)

    def _restore(self, name: str, value: Any, p: Tensor) -> Any:
        if name not in (*_SCALARS, *_VECTORS):
            raise ValueError(f"LBFGS: expected the state {sorted((*_SCALARS, *_VECTORS))}, got {name!r}")
        if isinstance(value, (list, tuple)):
            return [self._restore(name, part, p) for part in value]
        if name in _SCALARS:
            return number(value)  # PyTorch keeps some as tensors
        length = sum(q.numel() for q in self._parameters())
        if value.shape != (length,):
            raise ValueError(f"LBFGS: expected state {name!r} of shape ({length},), got {tuple(value.shape)}")
        return Tensor._wrap(asarray(value.array, p.dtype, p.device).copy())


def _renamed(state: State) -> State:
    """A state under PyTorch's names; an earlier one had ``pairs`` of (s, y), and ``moved`` and ``before`` of the last step."""
    if "pairs" not in state:
        return state
    changes, slopes = [s for s, _ in state["pairs"]], [y for _, y in state["pairs"]]
    found = {name: state[name] for name in ("func_evals", "n_iter")} | {"old_stps": changes, "old_dirs": slopes}
    products = [_number(y.array @ s.array) for s, y in state["pairs"]]
    found |= {"ro": [1.0 / ys for ys in products], "H_diag": 1.0}
    if products:
        found["H_diag"] = products[-1] / _number(slopes[-1].array @ slopes[-1].array)
    if "moved" in state:
        found |= {"d": state["moved"], "t": 1.0, "prev_flat_grad": state["before"]}
    return found


def _number(x: Array) -> float:
    return float(x.item())


def _remember(state: State, s: Array, y: Array, most: int) -> None:
    """Add the change of the parameters, s, and of the gradient, y, to the last ``most`` pairs."""
    ys = _number(y @ s)
    if ys <= 1e-10:  # the curvature is not positive, and H would not stay so
        return
    if len(state["ro"]) == most:
        for kept in (state["old_dirs"], state["old_stps"], state["ro"]):
            del kept[0]
    state["old_dirs"].append(Tensor._wrap(y))
    state["old_stps"].append(Tensor._wrap(s))
    state["ro"].append(1.0 / ys)
    state["H_diag"] = ys / _number(y @ y)


def _direction(g: Array, state: State) -> tuple[Array, list[float]]:
    """−H g by the two-loop recursion, and the αₖ = ρₖ sₖᵀq of its first loop."""
    pairs = [
        (s.array, y.array, rho) for s, y, rho in zip(state["old_stps"], state["old_dirs"], state["ro"], strict=True)
    ]
    q = -g
    alphas: list[float] = []
    for s, y, rho in reversed(pairs):
        alphas.append(rho * _number(s @ q))
        q = q - alphas[-1] * y
    alphas.reverse()
    q = q * state["H_diag"]
    for (s, y, rho), alpha in zip(pairs, alphas, strict=True):
        q = q + (alpha - rho * _number(y @ q)) * s
    return q, alphas


class _Point(NamedTuple):
    """A step, and there the loss, its slope along the direction and the gradient."""

    t: float
    loss: float
    slope: float
    gradient: Array


def _cubic_minimum(p: _Point, q: _Point, low: float, high: float) -> float:
    """Minimum of the cubic through two points with their slopes, within bounds; their middle where it has none."""
    a, b = (p, q) if p.t <= q.t else (q, p)
    if a.t == b.t:
        return a.t
    d1 = a.slope + b.slope - 3 * (a.loss - b.loss) / (a.t - b.t)
    root = d1 * d1 - a.slope * b.slope
    if not root >= 0:
        return (low + high) / 2
    d2 = math.sqrt(root)
    denominator = b.slope - a.slope + 2 * d2
    if not denominator:
        return (low + high) / 2
    return min(max(b.t - (b.t - a.t) * (b.slope + d2 - d1) / denominator, low), high)


def _strong_wolfe(
    at: Callable[[float], tuple[float, float, Array]],
    t: float,
    start: _Point,
    longest: float,
    tolerance: float,
    most: int,
    enough: float = 1e-4,
    flat: float = 0.9,
) -> tuple[_Point, int]:
    """Point with f(t) ≤ f₀ + enough·t·f₀′ and |f′(t)| ≤ flat·|f₀′|, and how often f was computed.

    Steps grow until an interval is known to hold such a t, then it shrinks by cubic interpolation. After ``most`` steps, or
    when no parameter changes by more than ``tolerance`` within it (``longest`` is the largest |d|), the best point so far.
    Bounds, margins and their order are those of PyTorch, so that programs find the same minimum by the same path.
    """

    def falls(p: _Point) -> bool:
        return p.loss <= start.loss + enough * p.t * start.slope

    def level(p: _Point) -> bool:
        return abs(p.slope) <= -flat * start.slope

    before, here, calls = start, _Point(t, *at(t)), 1
    while calls <= most and falls(here) and not (calls > 2 and here.loss >= before.loss) and here.slope < 0:
        if level(here):
            return here, calls
        t = _cubic_minimum(before, here, here.t + 0.01 * (here.t - before.t), 10 * here.t)
        before, here, calls = here, _Point(t, *at(t)), calls + 1
    if calls > most:
        before = start
    elif falls(here) and level(here):
        return here, calls
    low, high = (before, here) if not here.loss < before.loss else (here, before)
    stuck = False
    while calls <= most and abs(high.t - low.t) * longest >= tolerance:
        a, b = sorted((low.t, high.t))
        t, margin = _cubic_minimum(low, high, a, b), 0.1 * (b - a)
        near = min(b - t, t - a) < margin
        if near and (stuck or not a < t < b):  # too near an end, and the second time: the interval would not shrink
            t, near = (b - margin if b - t < t - a else a + margin), False
        stuck = near
        here, calls = _Point(t, *at(t)), calls + 1
        if not falls(here) or here.loss >= low.loss:
            high = here
            if high.loss < low.loss:
                low, high = high, low
            continue
        if here.slope * (high.t - low.t) >= 0:
            high = low
        low = here
        if level(here):
            break
    return low, calls
