"""Checkpointing: drop the intermediate results of a part of a network, and recompute them in backward. Memory for time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kobai.core.grad_mode import enable_grad, is_grad_enabled
from kobai.core.outputs import output_of
from kobai.core.tape import Node, Parts, run_backward
from kobai.core.tensor import Tensor
from kobai.ops.create import empty
from kobai.random import get_rng_state, set_rng_state

__all__ = ["checkpoint", "checkpoint_sequential", "get_device_states", "set_device_states"]


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)`` – a Tensor, or a tuple or list – without intermediate results: backward runs it again.

    Gradients reach the tensors among ``args`` and all others that ``function`` uses, such as parameters. ``preserve_rng_state``
    draws the same dropout masks again. ``use_reentrant`` chooses between two mechanisms in PyTorch; here there is only one.
    Chen et al., *Training deep nets with sublinear memory cost*, arXiv:1604.06174.

    >>> import kobai
    >>> x = kobai.tensor([2.0], requires_grad=True)
    >>> kobai.utils.checkpoint.checkpoint(lambda x: (x * x).exp(), x).backward()
    >>> round((x.grad / (4 * kobai.tensor(4.0).exp())).item(), 4)
    1.0
    """
    if not is_grad_enabled():
        return function(*args, **kwargs)
    state = get_rng_state() if preserve_rng_state else None
    start = Node("checkpoint", _nothing, ())
    result = function(*args, **kwargs)
    if state is not None and state == get_rng_state():  # nothing was drawn
        state = None
    outputs = result if isinstance(result, (tuple, list)) else (result,)
    if not any(isinstance(output, Tensor) for output in outputs):
        got = type(result).__name__
        raise TypeError(f"checkpoint: expected the function to return a Tensor, or a tuple or list with one, got {got}")
    edges = list(_inside(map(_edge, outputs), start)[1].values())
    if not edges:
        return result

    def run_again(parts: Any, create_graph: bool) -> list[Any]:
        """The gradients of what ``function`` used: on a fresh graph, cut off from the one that led here.

        So hooks there do not run yet, and nothing is accumulated.
        """
        start, now = Node("checkpoint", _nothing, ()), get_rng_state()
        if state is not None:
            set_rng_state(state)
        try:
            with enable_grad():
                again = function(*args, **kwargs)
        finally:
            if state is not None:
                set_rng_state(now)
        computed = again if isinstance(again, (tuple, list)) else (again,)
        roots = [(edge, parts[i]) for i in parts if (edge := _edge(computed[i])) is not None]
        nodes, used = _inside([edge for edge, _ in roots], start)
        ends = {key: empty(0, requires_grad=True) for key in used}
        whole = [(node, node.edges) for node in nodes]
        for node in nodes:
            node.edges = [ends.get(id(edge), edge) for edge in node.edges]
        found = run_backward(
            [(ends.get(id(edge), edge), dy) for edge, dy in roots],
            create_graph,
            {id(end) for end in ends.values()},
            create_graph=create_graph,
        )
        for node, leading in whole if create_graph else ():  # for derivatives of these gradients
            node.edges = leading
        return [found.get(id(ends.get(id(edge)))) for edge in edges]

    def vjp(parts: Parts) -> list[Any]:
        return run_again(parts, False)

    vjp.on_tape = lambda binding, parts: run_again(parts, True)  # type: ignore[attr-defined]
    node = Node("checkpoint", vjp, edges)
    made = [
        output_of("checkpoint", i, output, node) if _edge(output) is not None else output
        for i, output in enumerate(outputs)
    ]
    return made[0] if outputs is not result else type(result)(made)


def _nothing(dy: Any) -> tuple[()]:
    return ()


def _edge(output: Any) -> Any:
    return output._edge() if isinstance(output, Tensor) else None


def _inside(roots: Iterable[Any], start: Node) -> tuple[list[Node], dict[int, Any]]:
    """The graph that leads to ``roots``, back to ``start``: its nodes, and the older ones and leaves that it begins at."""
    nodes: dict[int, Node] = {}
    older: dict[int, Any] = {}
    stack = list(roots)
    while stack:
        edge = stack.pop()
        if type(edge) is not Node or edge.order < start.order:
            if edge is not None:
                older[id(edge)] = edge
        elif edge.order not in nodes:
            nodes[edge.order] = edge
            stack += edge.edges
    return list(nodes.values()), older


def get_device_states(*args: Any) -> tuple[list[int], list[Any]]:
    """Devices of the tensors among ``args`` and the states of their generators: none, for one generator serves them all.

    >>> import kobai
    >>> kobai.utils.checkpoint.get_device_states(kobai.ones(2))
    ([], [])
    """
    return [], []


def set_device_states(devices: Iterable[int], states: Iterable[Any]) -> None:
    """Give the generators of ``devices`` their ``states``, as :func:`get_device_states` found them.

    >>> import kobai
    >>> kobai.utils.checkpoint.set_device_states([], [])
    """
    if list(devices) or list(states):
        raise ValueError("set_device_states: one generator serves every device; use kobai.set_rng_state")


def checkpoint_sequential(
    functions: Iterable[Callable[[Any], Any]],
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:
    """A ``Sequential``, or a list of functions, in ``segments`` parts: :func:`checkpoint` runs all but the last.

    >>> import kobai
    >>> steps = [kobai.exp, kobai.log, kobai.sin]
    >>> x = kobai.zeros(1, requires_grad=True)
    >>> kobai.utils.checkpoint.checkpoint_sequential(steps, 2, x).backward()
    >>> x.grad
    tensor([1.])
    """
    steps = list(functions)
    if not 1 <= segments <= max(1, len(steps)):
        raise ValueError(f"checkpoint_sequential: expected 1 to {len(steps)} segments, got {segments}")

    def run(part: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
        def through(x: Any) -> Any:
            for step in part:
                x = step(x)
            return x

        return through

    size = len(steps) // segments
    for i in range(segments - 1):
        input = checkpoint(run(steps[i * size : (i + 1) * size]), input, preserve_rng_state=preserve_rng_state)
    return run(steps[(segments - 1) * size :])(input)
