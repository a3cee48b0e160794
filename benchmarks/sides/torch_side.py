"""PyTorch. Variants: ``eager``, ``fused`` (the optimiser), ``compile`` (and fused), ``graph`` (all of it one CUDA graph)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cases import LEARNING_RATE, Case
from sides import Absent, Run

if TYPE_CHECKING:  # it loads NumPy, and the library shall be the first to do so
    from problems import Problem


def versions(variant: str) -> dict[str, str]:
    """Import PyTorch, and say which version runs."""
    try:
        import torch
    except ImportError as error:
        raise Absent(f"{error}: pip install torch") from error
    if variant == "compile" and not any(map(shutil.which, (os.environ.get("CXX") or "g++", "clang++", "cl"))):
        raise Absent("torch.compile needs a C++ compiler, and there is none: install g++ or clang++")
    return {"torch": torch.__version__}


def free_memory() -> int:
    """Bytes that nobody holds on the GPU."""
    import torch

    return int(torch.cuda.mem_get_info()[0])


def make(case: Case, problem: Problem, variant: str, device: str, precision: str) -> Run:
    """The step of an ordinary script; images lie channels last, which is the faster way."""
    import torch
    import torch.nn.functional as F

    if device == "cuda" and not torch.cuda.is_available():
        raise Absent("this PyTorch sees no CUDA device")
    if device == "cpu":
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(0)
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    model = _model(case, problem).to(device)
    x, t = torch.tensor(problem.x, device=device), torch.tensor(problem.t, device=device)
    if problem.kernels:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    options: dict[str, Any] = {"lr": LEARNING_RATE[case.optimizer]}
    if variant != "eager":
        options["fused"] = True
    if variant == "graph" and case.optimizer != "SGD":
        options["capturable"] = True
    update = getattr(torch.optim, case.optimizer)(model.parameters(), **options)

    def loss_of(x: Any, t: Any) -> Any:
        # without its cache of cast weights, which a CUDA graph could not keep
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=variant != "graph"):
            return F.cross_entropy(model(x), t)

    forward = torch.compile(loss_of) if variant == "compile" else loss_of

    def step() -> Any:
        update.zero_grad()
        loss = forward(x, t)
        loss.backward()
        update.step()
        return loss.detach()

    cuda = device == "cuda"
    return Run(
        _graphed(step, update) if variant == "graph" else step,
        read=lambda loss: loss.item(),
        wait=torch.cuda.synchronize if cuda else lambda: None,
        memory=torch.cuda.max_memory_allocated if cuda else lambda: None,
    )


def _model(case: Case, problem: Problem) -> Any:
    import torch
    from torch import nn

    def filled(layer: Any, weight: Any) -> Any:
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
        return layer

    if case.block:
        return _sequence_model(case, problem, filled)
    layers: list[Any] = []
    for kernel in problem.kernels:
        convolution = nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        layers += [filled(convolution, kernel), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten()] * bool(problem.kernels)
    for weight in problem.weights:
        layers.append(filled(nn.Linear(weight.shape[1], weight.shape[0]), weight))
        if weight is not problem.weights[-1]:
            layers += [nn.BatchNorm1d(weight.shape[0])] * case.batch_norm
            layers += [nn.ReLU(), *[nn.Dropout(case.dropout)] * bool(case.dropout)]
    return nn.Sequential(*layers)


def _sequence_model(case: Case, problem: Problem, filled: Callable[..., Any]) -> Any:
    import torch
    from torch import nn

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
            self.block.load_state_dict({name: torch.tensor(array) for name, array in problem.block.items()})
            (weight,) = problem.weights
            self.head = filled(nn.Linear(weight.shape[1], weight.shape[0]), weight)

        def forward(self, x: Any) -> Any:
            y = self.block(x)
            return self.head(y.mean(1) if case.block == "transformer" else y[0][:, -1])

    return Model()


def _graphed(step: Callable[[], Any], update: Any) -> Callable[[], Any]:
    """Three steps on a side stream, as PyTorch asks for; from the fourth on the whole step is one graph."""
    import torch

    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    calls, kept = 0, None

    def whole() -> Any:
        nonlocal calls, kept
        calls += 1
        if calls <= 3:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                loss = step()
            torch.cuda.current_stream().wait_stream(stream)
            return loss
        if calls == 4:
            update.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                kept = step()
        graph.replay()
        return kept

    return whole
