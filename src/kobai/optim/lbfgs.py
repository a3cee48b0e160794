"""L-BFGS: a quasi-Newton method for smooth, full-batch problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from kobai._grad_mode import enable_grad
from kobai._tensor import Tensor
from kobai.optim.groups import NON_NEGATIVE, Group, Params, learning_rate
from kobai.optim.optimizer import Optimizer
from kobai.xp import Array, is_array, xp_of


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

    State (of the first parameter): ``func_evals``, ``n_iter``, the pairs, the last move and the gradient before it.

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

    _ranges: ClassVar = {"lr": NON_NEGATIVE}

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
        super().__init__(
            params,
            {
                "lr": lr,
                "max_iter": max_iter,
                "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
                "tolerance_grad": tolerance_grad,
                "tolerance_change": tolerance_change,
                "history_size": history_size,
                "line_search_fn": line_search_fn,
            },
        )

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
        lr = learning_rate(group)
        state = self.state[group["params"][0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        pairs: list[tuple[Array, Array]] = state.setdefault("pairs", [])

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
            if "moved" in state:
                s, y = state.pop("moved"), g - state.pop("before")
                if _number(s @ y) > 1e-10:  # else the curvature is not positive, and H would not stay so
                    pairs.append((s, y))
                    del pairs[: -group["history_size"]]
            state["n_iter"] += 1
            direction = _direction(g, pairs)
            t = lr if state["n_iter"] > 1 else min(1.0, 1.0 / _number(xp.abs(g).sum())) * lr
            slope = _number(g @ direction)
            if slope > -group["tolerance_change"]:
                break
            start = self._flat()

            def at(t: float, start: Array = start, direction: Array = direction) -> tuple[float, float, Array]:
                self._write(start + t * direction)
                _, value, gradient = evaluate()
                return value, _number(gradient @ direction), gradient

            before, state["before"] = loss, g
            if group["line_search_fn"] is not None:
                budget = max(1, min(25, group["max_eval"] - evaluations))
                t, loss, g, used = _strong_wolfe(at, t, loss, slope, g, budget)
                self._write(start + t * direction)
                evaluations += used
            elif iteration < group["max_iter"]:
                loss, _, g = at(t)
                evaluations += 1
            else:  # the next step() begins by looking there
                self._write(start + t * direction)
            state["moved"] = t * direction
            if (
                evaluations >= group["max_eval"]
                or _number(xp.abs(state["moved"]).max()) <= group["tolerance_change"]
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
            p.array[...] = flat[at : at + p.numel()].reshape(p.array.shape)
            p._bump()
            at += p.numel()

    def state_dict(self) -> dict[str, Any]:
        """As in every optimiser; vectors are tensors in it."""
        saved = super().state_dict()
        saved["state"] = {i: {name: _packed(value) for name, value in s.items()} for i, s in saved["state"].items()}
        return saved

    def _restore(self, name: str, value: Any, p: Tensor) -> Any:
        if name == "pairs":
            return [tuple(self._restore("", vector, p) for vector in pair) for pair in value]
        return value.to(p.device).array.copy() if isinstance(value, Tensor) else value


def _packed(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_packed(item) for item in value)
    return Tensor._wrap(value.copy()) if is_array(value) else value


def _number(x: Array) -> float:
    return float(x.item())


def _direction(g: Array, pairs: list[tuple[Array, Array]]) -> Array:
    """−H g by the two-loop recursion."""
    q = -g
    weights = []
    for s, y in reversed(pairs):
        rho = 1.0 / _number(y @ s)
        weight = rho * _number(s @ q)
        q = q - weight * y
        weights.append((rho, weight))
    if pairs:
        s, y = pairs[-1]
        q = q * (_number(s @ y) / _number(y @ y))
    for (s, y), (rho, weight) in zip(pairs, reversed(weights), strict=True):
        q = q + (weight - rho * _number(y @ q)) * s
    return q


def _cubic_minimum(a: float, fa: float, da: float, b: float, fb: float, db: float) -> float:
    """Minimum of the cubic through two points with these values and slopes; the middle where it has none between."""
    low, high = min(a, b), max(a, b)
    if a == b:
        return a
    d1 = da + db - 3 * (fa - fb) / (a - b)
    root = d1 * d1 - da * db
    if root < 0:
        return (low + high) / 2
    d2 = root**0.5 * (1 if b > a else -1)
    denominator = db - da + 2 * d2
    found = b - (b - a) * (db + d2 - d1) / denominator if denominator else (low + high) / 2
    margin = 0.1 * (high - low)  # not too near an end, or the interval would not shrink
    return min(max(found, low + margin), high - margin)


def _strong_wolfe(
    at: Callable[[float], tuple[float, float, Array]],
    t: float,
    f0: float,
    d0: float,
    g0: Array,
    budget: int,
    enough: float = 1e-4,
    flat: float = 0.9,
) -> tuple[float, float, Array, int]:
    """Step t with f(t) ≤ f₀ + enough·t·d₀ and |f′(t)| ≤ flat·|d₀|: (t, f, gradient, evaluations).

    First steps grow until an interval is known to hold such a t, then the interval shrinks by cubic interpolation. When
    the budget is used up, the best step so far.
    """
    low = (0.0, f0, d0, g0)
    high: tuple[float, float, float, Array] | None = None
    for n in range(1, budget + 1):
        f, d, g = at(t)
        here = (t, f, d, g)
        if not f <= f0 + enough * t * d0 or (f >= low[1] and low[0] > 0):
            high = here
        elif abs(d) <= -flat * d0:
            return t, f, g, n
        else:
            if high is None:
                if d >= 0:
                    high = low
            elif d * (high[0] - low[0]) >= 0:
                high = low
            low = here
        if high is None:
            t = t * 2
        else:
            t = _cubic_minimum(*low[:3], *high[:3])
            if abs(high[0] - low[0]) < 1e-9:
                break
    return low[0], low[1], low[3], n
