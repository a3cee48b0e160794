"""Recurrent layers: ``RNN``, ``LSTM``, ``GRU`` over sequences, and the single steps ``RNNCell``, ``LSTMCell``, ``GRUCell``.

A layer is one primitive of :mod:`kobai.ops.recurrent`, in both directions if it has two, and so is a cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from kobai.core.outputs import results
from kobai.core.tensor import Tensor
from kobai.errors import nearest
from kobai.nn import functional as F, init
from kobai.nn.linear import _size
from kobai.nn.module import Module
from kobai.nn.parameter import Parameter
from kobai.nn.tree import unusual
from kobai.nn.utils.rnn import PackedSequence, pack_like, pad_packed_sequence
from kobai.ops._args import need_flags
from kobai.ops.create import empty, zeros
from kobai.ops.gather import where as choose
from kobai.ops.joining import cat, stack
from kobai.ops.recurrent import PRIMITIVES
from kobai.xp import Array, move

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNBase", "RNNCell", "RNNCellBase"]

State = tuple[Tensor | None, ...]
"""(h,) or, of an LSTM, (h, c); None is zero."""

WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""Names of one direction's parameters."""


class _Recurrent(Module):
    """What layers and cells share: weights, drawn from U(−1/√hidden, 1/√hidden), and the step."""

    _kind: ClassVar[str] = "RNN"
    _gates: ClassVar[int] = 1
    _states: ClassVar[int] = 1

    input_size: int
    hidden_size: int
    bias: bool
    nonlinearity: str
    proj_size: int = 0
    """Of an LSTM whose h is projected; 0 where it is not."""

    def _set_sizes(self, input_size: int, hidden_size: int, bias: bool) -> None:
        if type(self) in (RNNBase, RNNCellBase):
            raise TypeError(
                f"{self._get_name()}: is what the recurrent layers share; make an RNN, LSTM or GRU, or a cell"
            )
        self.input_size = _size(self._get_name(), "input_size", input_size)
        self.hidden_size = _size(self._get_name(), "hidden_size", hidden_size)
        if hidden_size == 0:
            raise ValueError(f"{self._get_name()}: expected hidden_size > 0, got 0")
        self.bias, self.nonlinearity = bias, "tanh"

    def _set_nonlinearity(self, name: str) -> None:
        if name not in ("tanh", "relu"):
            hint = nearest(str(name), ["tanh", "relu"])
            raise ValueError(f"{self._get_name()}: unknown nonlinearity {name!r}.{hint}")
        self.nonlinearity = name

    def _add_weights(self, suffix: str, inputs: int, device: Any, dtype: Any) -> None:
        rows = self._gates * self.hidden_size
        for name, shape in zip(WEIGHTS, ((rows, inputs), (rows, self._width)), strict=False):
            self.register_parameter(name + suffix, Parameter(empty(*shape, device=device, dtype=dtype)))
        for name in WEIGHTS[2:]:
            fresh = Parameter(empty(rows, device=device, dtype=dtype)) if self.bias else None
            if fresh is not None or not suffix:  # as in PyTorch, a cell without bias has the name, a layer has not
                self.register_parameter(name + suffix, fresh)
        if self.proj_size:
            projection = Parameter(empty(self.proj_size, self.hidden_size, device=device, dtype=dtype))
            self.register_parameter("weight_hr" + suffix, projection)

    @property
    def _width(self) -> int:
        """Size of h."""
        return self.proj_size or self.hidden_size

    def flatten_parameters(self) -> None:
        """Does nothing: PyTorch packs the weights for cuDNN here, which Kobai does not use."""

    def reset_parameters(self) -> None:
        """Draw new parameters."""
        limit = 1.0 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -limit, limit)

    def _weight(self, name: str) -> Tensor | None:
        """A parameter, None without bias, or what a parametrization computes in its place."""
        return self._parameters[name] if name in self._parameters else getattr(self, name, None)

    def _run(self, input: Tensor, state: State, lengths: Array | None, suffixes: tuple[str, ...]) -> list[Tensor]:
        """One layer in every direction: its states at all times and (h,) or (h, c) after the last; of a cell only those."""
        weights = [self._weight(name + suffix) for suffix in suffixes for name in WEIGHTS]
        wanted = weights[0].dtype  # type: ignore[union-attr]
        given = [s for s in state if s is not None]
        if input.dtype != wanted or any(s.dtype != wanted for s in given):
            got = ", ".join(str(t.dtype) for t in (input, *given))
            raise (RuntimeError if input.dtype == wanted else ValueError)(
                f"{self._get_name()}: expected input and state of the weights' dtype {wanted}, got {got}"
            )
        options = {"nonlinearity": self.nonlinearity} if self._kind == "RNN" else {}
        joined = PRIMITIVES[self._kind](input, *state, lengths, *weights, **options)
        shapes: list[tuple[int, ...]] = [(*input.shape[:-1], self.hidden_size)] * self._states
        if input.ndim == 3:
            steps, batch, _ = input.shape
            directions = len(suffixes)
            last = (directions, batch, self.hidden_size)
            shapes = [(steps, batch, directions * self.hidden_size), *[last] * self._states]
        return results(joined, shapes)


class RNNBase(_Recurrent):
    """What :class:`RNN`, :class:`LSTM` and :class:`GRU` are, for ``isinstance``; it is not made itself.

    >>> import kobai
    >>> isinstance(kobai.nn.GRU(3, 4), kobai.nn.RNNBase)
    True
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        nonlinearity: str = "tanh",
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
            if isinstance(size, bool) or not hasattr(size, "__index__"):
                raise TypeError(f"{self._get_name()}: expected {name} to be an integer, got {size!r}")
            if size < 1:
                raise ValueError(f"{self._get_name()}: expected {name} >= 1, got {size}")
        if not hasattr(proj_size, "__index__") or not 0 <= proj_size < hidden_size:
            raise ValueError(f"{self._get_name()}: expected proj_size in [0, {hidden_size}), got {proj_size!r}")
        self._set_sizes(input_size, hidden_size, bias)
        self.proj_size = proj_size
        self._set_nonlinearity(nonlinearity)
        need_flags(self._get_name(), bias=bias, batch_first=batch_first)
        if isinstance(dropout, bool) or not hasattr(dropout, "__float__") or not 0.0 <= dropout <= 1.0:
            raise ValueError(f"{self._get_name()}: expected a probability dropout between 0 and 1, got {dropout!r}")
        self.num_layers, self.batch_first = num_layers, batch_first
        self.dropout, self.bidirectional = float(dropout), bidirectional
        self._suffixes = ("", "_reverse") if bidirectional else ("",)
        for layer in range(num_layers):
            inputs = self.input_size if layer == 0 else self._width * len(self._suffixes)
            for suffix in self._suffixes:
                self._add_weights(f"_l{layer}{suffix}", inputs, device, dtype)
        self.reset_parameters()

    @property
    def _flat_weights_names(self) -> list[str]:
        """PyTorch's private list of all parameters' names, layer by layer, which programs read."""
        return [name for names in self._names() for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        return [self._weight(name) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters, a list for each layer and direction."""
        return [[self._weight(name) for name in names] for names in self._names()]

    def _names(self) -> list[list[str]]:
        kinds = (*(WEIGHTS if self.bias else WEIGHTS[:2]), *(("weight_hr",) if self.proj_size else ()))
        places = [f"_l{layer}{suffix}" for layer in range(self.num_layers) for suffix in self._suffixes]
        return [[kind + place for kind in kinds] for place in places]

    def forward(self, input: Tensor | PackedSequence, hx: Any = None) -> tuple[Any, Any]:
        """(L, N, input_size) – or (N, L, ·) if ``batch_first``, or (L, ·) – → the states of the last layer, and the last state.

        The state (``hx``, zero by default, and the second result) is (layers · directions, N, hidden_size), or (·, ·)
        without batch; for an LSTM it is a pair (h, c) of those. In a PackedSequence each sequence has its own last state.
        """
        if isinstance(input, PackedSequence):
            padded, lengths = pad_packed_sequence(input)
            output, last_states = self._forward(padded, hx, False, move(lengths.array, padded.device))
            return pack_like(input, output), last_states
        return self._forward(input, hx, self.batch_first, None)

    def _forward(self, input: Tensor, hx: Any, batch_first: bool, lengths: Array | None) -> tuple[Tensor, Any]:
        if not isinstance(input, Tensor):
            raise TypeError(f"{self._get_name()}: expected a Tensor as input, got {type(input).__name__}")
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            wanted = f"(N, L, {self.input_size})" if batch_first else f"(L, N, {self.input_size})"
            raise (RuntimeError if input.ndim in (2, 3) else ValueError)(
                f"{self._get_name()}: expected input {wanted} or (L, {self.input_size}), got {tuple(input.shape)}"
            )
        batched = input.ndim == 3
        if not batched:
            input = input.unsqueeze(1)
        elif batch_first:
            input = input.transpose(0, 1)
        if input.shape[0] == 0:
            raise RuntimeError(f"{self._get_name()}: expected at least one step, got a sequence of length 0")
        states = self._initial(input, hx, batched)
        last: list[list[Tensor]] = []
        directions = len(self._suffixes)
        for layer in range(self.num_layers):
            state = states
            if self.num_layers > 1 and states[0] is not None:
                state = tuple(s[layer * directions : (layer + 1) * directions] for s in states)  # type: ignore[index]
            input, *after = self._run(input, state, lengths, tuple(f"_l{layer}{suffix}" for suffix in self._suffixes))
            last.append(after)
            if self.dropout and layer < self.num_layers - 1:
                input = F.dropout(input, self.dropout, self.training)
        final = tuple(last[0] if len(last) == 1 else [cat(parts) for parts in zip(*last, strict=True)])
        if not batched:
            input, final = input.squeeze(1), tuple(s.squeeze(1) for s in final)
        elif batch_first:
            input = input.transpose(0, 1)
        return input, final if self._states > 1 else final[0]

    def _initial(self, input: Tensor, hx: Any, batched: bool) -> State:
        if hx is None:
            return (None,) * self._states
        states = tuple(hx) if self._states > 1 else (hx,)
        rows, sizes = self.num_layers * len(self._suffixes), (self._width, self.hidden_size)[: self._states]
        wanted = [(rows, input.shape[1], size) if batched else (rows, size) for size in sizes]
        if [tuple(s.shape) if isinstance(s, Tensor) else None for s in states] != wanted:
            got = ", ".join(str(tuple(s.shape)) if isinstance(s, Tensor) else type(s).__name__ for s in states)
            alike = wanted[0] if len(set(wanted)) == 1 else wanted
            raise RuntimeError(f"{self._get_name()}: expected {self._states} state(s) of shape {alike}, got {got}")
        return states if batched else tuple(s.unsqueeze(1) for s in states)

    def extra_repr(self) -> str:
        usual = {"bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        return f"{self.input_size}, {self.hidden_size}" + unusual(self, proj_size=0, num_layers=1, **usual)


class RNN(RNNBase):
    """Elman's network: h_t = f(W_ih x_t + b_ih + W_hh h_{t−1} + b_hh), f tanh or relu.

    Args:
        input_size, hidden_size: of x_t and h_t.
        num_layers: each layer's states are the next one's inputs.
        nonlinearity: f, ``"tanh"`` or ``"relu"``.
        bias: whether there are b_ih and b_hh.
        batch_first: sequences are (N, L, ·) instead of (L, N, ·).
        dropout: between the layers, in training.
        bidirectional: a second network reads backwards; its states are concatenated to the first one's.
        device, dtype: of the parameters.

    Parameters ``weight_ih_l0`` (hidden, input), ``weight_hh_l0`` (hidden, hidden), ``bias_ih_l0``, ``bias_hh_l0``, and so on
    for other layers; with the suffix ``_reverse`` for the second direction. Elman, Cognitive Science 14, 1990.

    >>> import kobai
    >>> y, h = kobai.nn.RNN(3, 4, num_layers=2)(kobai.randn(5, 2, 3))
    >>> y.shape, h.shape
    (kobai.Size([5, 2, 4]), kobai.Size([2, 2, 4]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes, where = (input_size, hidden_size, num_layers), (device, dtype)
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, *where, nonlinearity=nonlinearity)


class LSTM(RNNBase):
    """Long short-term memory: i, f, o = σ(W x_t + W' h + b), g = tanh(…), c_t = f ⊙ c + i ⊙ g, h_t = o ⊙ tanh(c_t).

    Arguments as those of :class:`RNN` without ``nonlinearity``; the rows of the weights are i, f, g, o, in this order,
    and the state is a pair (h, c). With ``proj_size`` P > 0, less than hidden_size, h_t = W_hr (o ⊙ tanh(c_t)) has size P;
    ``weight_hr_l0`` is (P, hidden). Such a layer goes step by step, one operation after the other.
    Hochreiter and Schmidhuber, Neural Computation 9, 1997; Sak et al., arXiv:1402.1128.

    >>> import kobai
    >>> y, (h, c) = kobai.nn.LSTM(3, 4, batch_first=True)(kobai.randn(2, 5, 3))
    >>> y.shape, h.shape, c.shape
    (kobai.Size([2, 5, 4]), kobai.Size([1, 2, 4]), kobai.Size([1, 2, 4]))
    """

    _kind = "LSTM"
    _gates = 4
    _states = 2

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        sizes, where = (input_size, hidden_size, num_layers), (device, dtype)
        super().__init__(*sizes, bias, batch_first, dropout, bidirectional, *where, proj_size=proj_size)

    def _run(self, input: Tensor, state: State, lengths: Array | None, suffixes: tuple[str, ...]) -> list[Tensor]:
        if not self.proj_size:
            return super()._run(input, state, lengths, suffixes)
        ways = [
            self._projected(input, [None if s is None else s[i] for s in state], way, lengths)
            for i, way in enumerate(suffixes)
        ]
        outputs, hs, cs = zip(*ways, strict=True)
        return [cat(outputs, -1), stack(hs), stack(cs)]

    def _projected(
        self, input: Tensor, state: Sequence[Tensor | None], suffix: str, lengths: Array | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One direction of a layer whose h is projected: h at all times, and h and c after the last."""
        own = {name: self._weight(name + suffix) for name in (*WEIGHTS, "weight_hr")}
        from_x = F.linear(input, own["weight_ih"], own["bias_ih"])  # type: ignore[arg-type]
        h, c = (
            zeros(input.shape[1], size, dtype=input.dtype, device=input.device) if s is None else s
            for s, size in zip(state, (self.proj_size, self.hidden_size), strict=True)
        )
        steps, ends = range(input.shape[0]), None if lengths is None else Tensor._wrap(lengths).unsqueeze(-1)
        every: dict[int, Tensor] = {}
        for t in reversed(steps) if suffix.endswith("_reverse") else steps:
            i, f, g, o = (from_x[t] + F.linear(h, own["weight_hh"], own["bias_hh"])).chunk(4, -1)  # type: ignore[arg-type]
            c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h_new = F.linear(o.sigmoid() * c_new.tanh(), own["weight_hr"])  # type: ignore[arg-type]
            if ends is not None:
                h_new, c_new = choose(ends > t, h_new, h), choose(ends > t, c_new, c)
            every[t], h, c = h_new, h_new, c_new
        return stack([every[t] for t in steps]), h, c


class GRU(RNNBase):
    """Gated recurrent unit: r, z = σ(…), n = tanh(W x_t + b + r ⊙ (W' h + b')), h_t = (1 − z) ⊙ n + z ⊙ h.

    Arguments as those of :class:`RNN` without ``nonlinearity``; the rows of the weights are r, z, n, in this order.
    Cho et al., EMNLP 2014, arXiv:1406.1078.

    >>> import kobai
    >>> y, h = kobai.nn.GRU(3, 4, bidirectional=True)(kobai.randn(5, 2, 3))
    >>> y.shape, h.shape
    (kobai.Size([5, 2, 8]), kobai.Size([2, 2, 4]))
    """

    _kind = "GRU"
    _gates = 3


class RNNCellBase(_Recurrent):
    """What :class:`RNNCell`, :class:`LSTMCell` and :class:`GRUCell` are, for ``isinstance``; it is not made itself.

    >>> import kobai
    >>> isinstance(kobai.nn.GRUCell(3, 4), kobai.nn.RNNCellBase)
    True
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self._set_sizes(input_size, hidden_size, bias)
        self._add_weights("", self.input_size, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """(N, input_size) or (input_size), and the state, zero by default → the next state, (N, hidden_size) or (·)."""
        if input.ndim not in (1, 2) or input.shape[-1] != self.input_size:
            raise (RuntimeError if input.ndim in (1, 2) else ValueError)(
                f"{self._get_name()}: expected input (N, {self.input_size}) or ({self.input_size},), "
                f"got {tuple(input.shape)}"
            )
        states: Any = (None,) * self._states
        if hx is not None:
            wanted = (*input.shape[:-1], self.hidden_size)
            states = tuple(hx) if self._states > 1 else (hx,)
            if len(states) != self._states or any(tuple(s.shape) != wanted for s in states):
                got = ", ".join(str(tuple(s.shape)) for s in states)
                raise (RuntimeError if all(s.ndim in (1, 2) for s in states) else ValueError)(
                    f"{self._get_name()}: expected {self._states} state(s) of shape {wanted}, got {got}"
                )
        after = self._run(input, states, None, ("",))
        return tuple(after) if self._states > 1 else after[0]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + unusual(self, bias=True, nonlinearity="tanh")


class RNNCell(RNNCellBase):
    """One step of :class:`RNN`: h' = f(W_ih x + b_ih + W_hh h + b_hh), f tanh or relu.

    >>> import kobai
    >>> kobai.nn.RNNCell(3, 4)(kobai.randn(2, 3)).shape
    kobai.Size([2, 4])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self._set_nonlinearity(nonlinearity)


class LSTMCell(RNNCellBase):
    """One step of :class:`LSTM`: (x, (h, c)) → (h', c').

    >>> import kobai
    >>> h, c = kobai.nn.LSTMCell(3, 4)(kobai.randn(2, 3))
    >>> h.shape
    kobai.Size([2, 4])
    """

    _kind = "LSTM"
    _gates = 4
    _states = 2


class GRUCell(RNNCellBase):
    """One step of :class:`GRU`: (x, h) → h'.

    >>> import kobai
    >>> kobai.nn.GRUCell(3, 4)(kobai.randn(2, 3)).shape
    kobai.Size([2, 4])
    """

    _kind = "GRU"
    _gates = 3
