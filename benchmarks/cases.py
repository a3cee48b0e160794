"""The training steps that are compared: nets, batch sizes, optimisers; and the matrix products that none can leave out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

LEARNING_RATE = {"SGD": 1e-2, "Adam": 1e-3}


@dataclass(frozen=True)
class Case:
    """An MLP; with ``channels`` a convolutional net before it: 3×3 convolution, ReLU, 2×2 max-pooling for each of them.

    With ``block`` a sequence of ``tokens`` vectors instead, and a linear layer of what comes out. "transformer": an encoder
    block of sizes (width, inner width, classes) with ``heads`` and GELU, averaged over the tokens. "lstm": a layer of sizes
    (inputs, units, classes), its last output.
    """

    title: str
    sizes: tuple[int, ...]
    batch: int
    optimizer: str
    steps: int
    """Steps in one timed block: short enough to alternate often, long enough for the clock."""
    batch_norm: bool = False
    dropout: float = 0.0
    channels: tuple[int, ...] = ()
    side: int = 28
    """Height and width of the images."""
    block: str = ""
    tokens: int = 0
    heads: int = 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a batch: (N, features), (N, 1, H, W) for images, or (N, tokens, features) for sequences."""
        if self.block:
            return (self.batch, self.tokens, self.sizes[0])
        return (self.batch, 1, self.side, self.side) if self.channels else (self.batch, self.sizes[0])


def shrunk(case: Case) -> Case:
    """The same kind of step with next to no data: to load code, or to try the programs out."""
    few = tuple(4 for _ in case.channels)
    first = 4 * (case.side // 2 ** len(few)) ** 2 if few else 16
    sizes = (first, *(8 for _ in case.sizes[1:-1]), min(case.sizes[-1], 10))
    tokens, heads = min(case.tokens, 6), min(case.heads, 2)
    return replace(case, sizes=sizes, batch=8, steps=2, channels=few, tokens=tokens, heads=heads)


S = (784, 100, 100, 100, 100, 10)
CPU = {
    "S": Case("S: 784-100-100-100-100-10, batch 100, SGD", S, 100, "SGD", 60),
    "S+BN": Case("S + BatchNorm1d before each ReLU, Adam", S, 100, "Adam", 40, batch_norm=True),
    "S+dropout": Case("S + Dropout(0.5) after each ReLU, SGD", S, 100, "SGD", 40, dropout=0.5),
    "M": Case("M: 784-512-512-10, batch 256, Adam", (784, 512, 512, 10), 256, "Adam", 8),
    "L": Case("L: 1024-2048-2048-1024, batch 1024, Adam", (1024, 2048, 2048, 1024), 1024, "Adam", 1),
    "CNN": Case("CNN: conv 1-32-64, 3136-128-10, batch 128, Adam", (3136, 128, 10), 128, "Adam", 2, channels=(32, 64)),
}
M_GPU, L_GPU = (784, 1024, 1024, 1024, 10), (4096,) * 5
CUDA = {
    "S": Case("S: 784-100-100-100-100-10, batch 100, SGD", S, 100, "SGD", 300),
    "S+BN": Case("S + BatchNorm1d before each ReLU, Adam", S, 100, "Adam", 200, batch_norm=True),
    "S+dropout": Case("S + Dropout(0.5) after each ReLU, SGD", S, 100, "SGD", 200, dropout=0.5),
    "M'": Case("M': 784-1024-1024-1024-10, batch 1024, Adam", M_GPU, 1024, "Adam", 100),
    "M'+BN": Case("M' + BatchNorm1d before each ReLU, Adam", M_GPU, 1024, "Adam", 100, batch_norm=True),
    "L'": Case("L': 4096-4096-4096-4096-4096, batch 8192, Adam", L_GPU, 8192, "Adam", 4),
    "CNN": Case("CNN: conv 1-32-64, 3136-128-10, batch 128, Adam", (3136, 128, 10), 128, "Adam", 50, channels=(32, 64)),
    "transformer": Case(
        "Transformer block: width 512, 8 heads, inner 2048, 128 tokens, batch 32, Adam",
        (512, 2048, 10),
        32,
        "Adam",
        50,
        block="transformer",
        tokens=128,
        heads=8,
    ),
    "RNN": Case(
        "RNN: LSTM 128-256, 64 tokens, batch 128, Adam",
        (128, 256, 10),
        128,
        "Adam",
        20,
        block="lstm",
        tokens=64,
    ),
}


def products(case: Case) -> Iterator[tuple[int, int, int]]:
    """(rows, inner, columns) of each layer's forward product, convolutions as products with ready columns, first layer first.

    Attention's two products for each head of each sequence count as one of as many operations. Backward each layer has two
    more, of the same three lengths: the gradients of its weights and of its input, which the first layer does without.
    """
    if case.block:
        (width, inner, classes), rows = case.sizes, case.batch * case.tokens
        if case.block == "transformer":
            yield rows, width, 3 * width
            yield from [(rows, width, case.tokens)] * 2
            yield from [(rows, width, width), (rows, width, inner), (rows, inner, width)]
        else:
            yield from [(rows, width, 4 * inner), (rows, inner, 4 * inner)]
        yield case.batch, width if case.block == "transformer" else inner, classes
        return
    side = case.side
    for m, n in pairwise((1, *case.channels)):
        yield case.batch * side * side, 9 * m, n
        side //= 2
    for m, n in pairwise(case.sizes):
        yield case.batch, m, n


def flops(case: Case) -> int:
    """Floating-point operations of all products of one step."""
    sizes = [2 * rows * inner * columns for rows, inner, columns in products(case)]
    return 3 * sum(sizes) - sizes[0]
