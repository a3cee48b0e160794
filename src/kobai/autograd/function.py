"""``Function``: an operation whose backward the user writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kobai._tensor import Node, Tensor, is_grad_enabled, no_grad
from kobai.xp import Array, xp_of


class Context:
    """What ``forward`` hands to ``backward`` of a :class:`Function`: saved tensors, and any attribute."""

    def __init__(self) -> None:
        self._saved: tuple[Tensor | None, ...] = ()
        self._versions: tuple[int, ...] = ()
        self._not_differentiable: tuple[int, ...] = ()
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, which will check that they were not changed in place."""
        self._saved = tuple(None if t is None else t.detach() for t in tensors)
        self._versions = tuple(0 if t is None else t._version[0] for t in tensors)

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What :meth:`save_for_backward` kept."""
        for tensor, version in zip(self._saved, self._versions, strict=True):
            if tensor is not None and tensor._version[0] != version:
                raise RuntimeError("saved_tensors: a tensor saved for backward was changed in place afterwards")
        return self._saved

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Name outputs that have no gradient."""
        self._not_differentiable = tuple(id(t) for t in tensors)


class Function:
    """An operation with a hand-written gradient: subclass with static ``forward(ctx, ...)`` and ``backward(ctx, dy)``.

    ``backward`` receives one gradient per output of ``forward`` and returns one per input, None for those without.

    >>> import kobai
    >>> class Cube(kobai.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.save_for_backward(x)
    ...         return x ** 3
    ...     @staticmethod
    ...     def backward(ctx, dy):
    ...         (x,) = ctx.saved_tensors
    ...         return dy * 3 * x ** 2
    >>> x = kobai.tensor(2.0, requires_grad=True)
    >>> Cube.apply(x).backward()
    >>> x.grad
    tensor(12.)
    """

    @staticmethod
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute the outputs."""
        raise NotImplementedError("Function: define a static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Compute the gradients of the inputs."""
        raise NotImplementedError("Function: define a static method backward(ctx, *grad_outputs)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run ``forward`` and record ``backward`` on the tape."""
        ctx = Context()
        ctx.needs_input_grad = tuple(isinstance(a, Tensor) and a.requires_grad for a in args)
        with no_grad():
            result = cls.forward(ctx, *args, **kwargs)
        outputs = result if isinstance(result, tuple) else (result,)
        if not is_grad_enabled() or not any(ctx.needs_input_grad):
            return result
        edges = [a._edge() if isinstance(a, Tensor) else None for a in args]
        made = []
        for i, output in enumerate(outputs):
            if (
                not isinstance(output, Tensor)
                or not output.is_floating_point()
                or id(output) in ctx._not_differentiable
            ):
                made.append(output)
                continue
            out = output.detach()
            out._version = output._version
            out._requires_grad = True
            out._node = Node(cls.__name__, _vjp_of(cls, ctx, i, outputs), edges)
            made.append(out)
        return tuple(made) if isinstance(result, tuple) else made[0]


def _vjp_of(cls: type[Function], ctx: Context, i: int, outputs: Sequence[Any]) -> Any:
    """Vjp of output ``i`` alone: gradients are linear in those of the outputs, so the tape may add up the parts."""
    like = [o._array if isinstance(o, Tensor) else None for o in outputs]

    def vjp(dy: Array) -> list[Any]:
        dys = [
            Tensor._wrap(dy) if j == i else None if a is None else Tensor._wrap(xp_of(a).zeros_like(a))
            for j, a in enumerate(like)
        ]
        with no_grad():
            grads = cls.backward(ctx, *dys)
        grads = grads if isinstance(grads, tuple) else (grads,)
        if len(grads) != len(ctx.needs_input_grad):
            raise RuntimeError(
                f"{cls.__name__}.backward: expected {len(ctx.needs_input_grad)} gradients, one for each input of forward, "
                f"got {len(grads)}"
            )
        return [None if g is None else g._array for g in grads]

    return vjp
