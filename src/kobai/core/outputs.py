"""Tensors that come out of one node together: those of a ``Function``, or of a part that is recomputed."""

from __future__ import annotations

from kobai.core.primitive import changed_by
from kobai.core.tape import Node, Parts
from kobai.core.tensor import Tensor


def output_of(name: str, i: int, output: Tensor, node: Node, dirty: bool = False) -> Tensor:
    """Output ``i`` of a Function on the tape: its own node, which passes the gradient on to the common one.

    An input changed in place (``dirty``) is itself the output; another tensor, its own memory or not, stays out of the tape.
    """
    own = Node(name, lambda dy: (Parts({i: dy}),), [node])
    if dirty:
        changed_by(output, own)
        return output
    out = output.detach()
    out._requires_grad = True
    out._node = own
    return out
