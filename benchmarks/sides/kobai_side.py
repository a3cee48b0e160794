"""Kobai. Variants: ``captured``, ``eager``; with ``-plain`` behind them Numba counts as not installed."""

from __future__ import annotations

import sys
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
    kobai.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    kobai.manual_seed(0)
    model = model_of(case, problem)
    update = getattr(kobai.optim, case.optimizer)(model.parameters(), lr=LEARNING_RATE[case.optimizer])
    x, t = kobai.tensor(problem.x), kobai.tensor(problem.t)

    def step(x: Any, t: Any) -> Any:
        update.zero_grad()
        loss = F.cross_entropy(model(x), t)
        loss.backward()
        update.step()
        return loss

    whole = kobai.capture(step) if variant.startswith("captured") else step
    return Run(
        lambda: whole(x, t),
        read=lambda loss: loss.item(),
        wait=lambda: kobai.cuda.synchronize() if device == "cuda" else None,
        memory=lambda: getattr(whole, "bytes", None),
    )
