"""``Parameter``: a tensor that a module trains; ``Buffer``: one that belongs to its state and is not trained."""

from __future__ import annotations

from typing import Any

from kobai.core.conversion import attributes
from kobai.core.subclasses import disabled_torch_function
from kobai.core.tensor import Tensor

__all__ = ["Buffer", "Parameter"]


class Parameter(Tensor):
    """A leaf tensor that a ``Module`` registers when it is assigned as an attribute, and an optimiser updates.

    It shares the memory of ``data`` (any shape; a float dtype where ``requires_grad``).

    >>> import kobai
    >>> kobai.nn.Parameter(kobai.tensor([1.0, 2.0]))
    Parameter containing:
    tensor([1., 2.], requires_grad=True)
    """

    __torch_function__ = staticmethod(disabled_torch_function)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        if data is None:
            super().__init__()
        elif isinstance(data, Tensor):
            self._array = data._array
            self._version = data._version  # the same memory, hence the same count of in-place changes
        else:
            raise TypeError(f"Parameter: expected a kobai.Tensor, got {type(data).__name__}; use kobai.tensor(...)")
        self.requires_grad_(requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """A parameter with memory of its own; its gradient stays behind, as in PyTorch."""
        if id(self) not in memo:
            copy = Parameter._wrap(self._array.copy(), self.requires_grad)
            copy.__class__ = type(self)
            copy.__dict__.update(attributes(self))
            memo[id(self)] = copy
        found: Parameter = memo[id(self)]
        return found

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Buffer(Tensor):
    """A tensor that a ``Module`` registers as a buffer when it is assigned as an attribute, as ``register_buffer`` does.

    It shares the memory of ``data``. With ``persistent=False`` it is left out of ``state_dict``.

    >>> import kobai
    >>> module = kobai.nn.Module()
    >>> module.mean = kobai.nn.Buffer(kobai.zeros(2))
    >>> list(module.state_dict())
    ['mean']
    """

    __torch_function__ = staticmethod(disabled_torch_function)

    def __init__(self, data: Tensor | None = None, *, persistent: bool = True) -> None:
        if data is None:
            super().__init__()
        elif isinstance(data, Tensor):
            self._array = data._array
            self._version = data._version
        else:
            raise TypeError(f"Buffer: expected a kobai.Tensor, got {type(data).__name__}; use kobai.tensor(...)")
        self.persistent = persistent
