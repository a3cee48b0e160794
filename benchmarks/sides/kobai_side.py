"""Kobai. Variants: ``captured``, ``eager``; with ``-plain`` behind them Numba counts as not installed."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cases import LEARNING_RATE, Case
from sides import Absent, Run

if TYPE_CHECKING:  # it loads NumPy, and the library shall be the first to do so
    from problems import Problem


def versions(variant: str) -> dict[str, str]:
    """Import Kobai, and say which versions run."""
    if variant.endswith("-plain"):
        sys.modules["numba"] = None  # type: ignore[assignment]
    import numpy

    import kobai

    found = {"kobai": kobai.__version__, "numpy": numpy.__version__}
    if not variant.endswith("-plain"):
        try:
            import numba
        except ImportError as error:
            raise Absent(f"{error}: pip install 'kobai[cpu]'") from error
        found["numba"] = numba.__version__
    return found


def free_memory() -> int:
    """Bytes that nobody holds on the GPU."""
    import kobai

    return kobai.cuda.mem_get_info()[0]


def model_of(case: Case, problem: Problem) -> Any:
    """The net as an ordinary script writes it, layer by layer."""
    import kobai
    from kobai import nn

    if case.block:
        return _sequence_model(case, problem).to(kobai.get_default_device())
    layers: list[nn.Module] = []
    for kernel in problem.kernels:
        convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        _fill(convolution, kernel)
        layers += [convolution, nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten()] * bool(problem.kernels)
    for weight in problem.weights:
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        _fill(linear, weight)
        layers.append(linear)
        if weight is not problem.weights[-1]:
            layers += [nn.BatchNorm1d(weight.shape[0])] * case.batch_norm
            layers += [nn.ReLU(), *[nn.Dropout(case.dropout)] * bool(case.dropout)]
    return nn.Sequential(*layers).to(kobai.get_default_device())


def _sequence_model(case: Case, problem: Problem) -> Any:
    import kobai
    from kobai import nn

    width, inner, _ = case.sizes

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            if case.block == "transformer":
                self.block = nn.TransformerEncoderLayer(
                    width, case.heads, inner, dropout=0.0, activation="gelu", batch_first=True
                )
            else:
                self.block = nn.LSTM(width, inner, batch_first=True)
            self.block.load_state_dict({name: kobai.tensor(array) for name, array in problem.block.items()})
            (weight,) = problem.weights
            self.head = nn.Linear(weight.shape[1], weight.shape[0])
            _fill(self.head, weight)

        def forward(self, x: Any) -> Any:
            y = self.block(x)
            return self.head(y.mean(1) if case.block == "transformer" else y[0][:, -1])

    return Model()


def _fill(layer: Any, weight: Any) -> None:
    import kobai

    with kobai.no_grad():
        layer.weight.copy_(kobai.tensor(weight))
        layer.bias.zero_()


def make(case: Case, problem: Problem, variant: str, device: str, precision: str) -> Run:
    """The step; under ``captured`` through ``kobai.capture``."""
    import kobai
    from kobai.nn import functional as F

    kobai.use("cupy" if device == "cuda" else "numpy")
    under = _precision(precision, device)
    kobai.cuda.empty_cache()  # what an earlier case held
    before = kobai.cuda.max_memory_allocated() if device == "cuda" else 0
    kobai.manual_seed(0)
    model = model_of(case, problem)
    update = getattr(kobai.optim, case.optimizer)(model.parameters(), lr=LEARNING_RATE[case.optimizer])
    x, t = kobai.tensor(problem.x), kobai.tensor(problem.t)

    def step(x: Any, t: Any) -> Any:
        update.zero_grad()
        with under():
            loss = F.cross_entropy(model(x), t)
        loss.backward()
        update.step()
        return loss

    def memory() -> int | None:
        """What captured steps hold; on a GPU all that the pool has reserved as well, which never shrinks by itself."""
        held: int | None = getattr(whole, "bytes", None)
        return held if device != "cuda" else (held or 0) + kobai.cuda.max_memory_allocated() - before

    whole = kobai.capture(step) if variant.startswith("captured") else step
    return Run(
        lambda: whole(x, t),
        read=lambda loss: loss.item(),
        wait=lambda: kobai.cuda.synchronize() if device == "cuda" else None,
        memory=memory,
    )


def _precision(precision: str, device: str) -> Callable[[], Any]:
    """Set the precision of products; what the forward pass runs under."""
    import kobai

    kobai.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    if precision != "bf16":
        return contextlib.nullcontext
    try:
        under = functools.partial(kobai.autocast, device, dtype=kobai.bfloat16)
        under()
    except (AttributeError, NotImplementedError):
        raise Absent("this Kobai has no bfloat16 and no autocast") from None
    return under
