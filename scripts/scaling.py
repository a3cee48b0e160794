"""A model of data parallelism on GPUs: what a step costs on 1 to 1024 of them, and whether overlap in buckets pays.

    python scripts/scaling.py

Prints the tables of docs/scaling.md, which has the assumptions and their sources; ``tests/test_scaling.py`` compares them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2

MICRO, GIGA = 1e-6, 1e9

NODE = 8
"""GPUs that NVLink connects; each has its own InfiniBand adapter."""
NVLINK, INFINIBAND, MEMORY = 370 * GIGA, 45 * GIGA, 2700 * GIGA
"""Bytes per second that are reached, of 450, 50 and 3350."""
BASE, NVLINK_HOP, NETWORK_HOP = 8.4 * MICRO, 3.4 * MICRO, 9.6 * MICRO
"""Seconds to begin a collective, and of each of its hops."""
FLOPS = {"fp32": 0.6 * 67e12, "tf32": 0.4 * 495e12, "bf16": 0.4 * 989e12}
"""Operations per second that are reached, of the data sheet's."""
GPUS = (1, 8, 16, 32, 64, 128, 1024)


@dataclass(frozen=True)
class Model:
    """Of each layer, in the order of forward, the parameters and how many numbers a sample is multiplied with.

    ``samples`` (or tokens) are those of a step on one GPU.
    """

    name: str
    layers: tuple[tuple[int, int], ...]
    samples: int
    precision: str

    @property
    def size(self) -> int:
        """Bytes of all gradients, in float32."""
        return 4 * sum(parameters for parameters, _ in self.layers)

    def seconds(self, factors: int) -> float:
        """One pass forward through so many numbers; backward takes two."""
        return 2 * factors * self.samples / FLOPS[self.precision]

    def update(self) -> float:
        """Adam reads four arrays and writes three."""
        return 7 * self.size / MEMORY


WIDE = tuple((rows * columns + columns, rows * columns) for rows, columns in ((1024, 2048), (2048, 2048), (2048, 1024)))
WORDS, BLOCK = 50257 * 768, (12 * 768**2 + 13 * 768, 12 * 768**2)
BLOCKS = ((WORDS + 1024 * 768, 0), *[BLOCK] * 12, (0, WORDS))
"""The embedding serves both ends: it is multiplied with in the last layer, and its gradient is complete after the first."""
MODELS = (
    Model("L′, FP32", WIDE, 1024, "fp32"),
    Model("L′, TF32", WIDE, 1024, "tf32"),
    Model("transformer, TF32", BLOCKS, 8192, "tf32"),
    Model("transformer, BF16", BLOCKS, 8192, "bf16"),
)


def reduction(size: float, gpus: int) -> float:
    """The tree's exchange of so many bytes: slices within the node, then between nodes, added, and gathered the same way.

    Each GPU sends (m − 1)/m of its bytes within a node of m, and (n − 1)/n of an m-th of them to the other n − 1 nodes, twice.
    """
    if gpus == 1:
        return 0.0
    inside = min(gpus, NODE)
    nodes = gpus // inside
    part = size / inside
    within = BASE + NVLINK_HOP * log2(inside) + (inside - 1) / inside * size / NVLINK
    between = BASE + NETWORK_HOP * log2(nodes) + (nodes - 1) / nodes * part / INFINIBAND if nodes > 1 else 0.0
    added = 2 * (size + part * (nodes > 1)) / MEMORY  # each slice is read once and written, in all
    return 2 * (within + between) + added


def step(model: Model, gpus: int, bucket: float | None = None) -> float:
    """Seconds of a step; without buckets all gradients travel when backward has ended.

    With them, a bucket travels as soon as backward has filled it and the one before has arrived.
    """
    now = sum(model.seconds(factors) for _, factors in model.layers)
    free, waiting = 0.0, 0.0
    for parameters, factors in reversed(model.layers):
        now += 2 * model.seconds(factors)
        waiting += 4 * parameters
        if bucket is not None and waiting >= bucket:
            free = max(free, now) + reduction(waiting, gpus)
            waiting = 0.0
    if waiting:
        free = max(free, now) + reduction(waiting, gpus)
    return max(now, free) + model.update()


def best_bucket(model: Model, gpus: int) -> float:
    """Of 1 to 256 MiB, what makes the shortest step."""
    return min((2**20 * 2**i for i in range(9)), key=lambda size: step(model, gpus, size))


def table(model: Model) -> str:
    """One row for each number of GPUs."""
    computing = step(model, 1)
    heading = f"**{model.name}**: {model.size / 1e6:.0f} MB of gradients, {1e3 * computing:.2f} ms of computing"
    rows = ["| GPUs | exchange, ms | step, ms | efficiency | in buckets, ms | efficiency | of at least |"]
    rows.append("|" + "---|" * 7)
    for gpus in GPUS:
        plain, size = step(model, gpus), best_bucket(model, gpus)
        overlapped = step(model, gpus, size)
        cells = [
            f"{gpus}",
            f"{1e3 * reduction(model.size, gpus):.2f}",
            f"{1e3 * plain:.2f}",
            f"{computing / plain:.0%}",
        ]
        cells += [
            f"{1e3 * overlapped:.2f}",
            f"{computing / overlapped:.0%}",
            f"{size / 2**20:.0f} MiB" if gpus > 1 else "–",
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join([heading, "", *rows])


def fixed_batch(model: Model, of: int = 8) -> str:
    """Steps with the batch of ``of`` GPUs on more and more of them, in buckets where that is shorter."""
    times = []
    for gpus in (8, 16, 32, 64, 128):
        each = replace(model, samples=model.samples * of // gpus)
        times.append(min(step(each, gpus), step(each, gpus, best_bucket(each, gpus))))
    cells = " | ".join(f"{1e3 * time:.2f}" for time in times)
    return f"| {model.name} | {model.samples * of:,} | {cells} |"


def bytes_per_step(model: Model, gpus: int = 128) -> str:
    """What one GPU sends."""
    nodes = gpus // NODE
    nvlink, network = 2 * 7 / 8 * model.size, 2 * (nodes - 1) / nodes * model.size / NODE
    name = model.name.partition(",")[0]
    return f"| {name} | {model.size / 4e6:.1f} M | {nvlink / 1e6:.0f} MB | {network / 1e6:.0f} MB |"


def main() -> None:
    """All tables."""
    print("| | parameters | by NVLink | by InfiniBand |\n|---|---|---|---|")
    print(bytes_per_step(MODELS[0]), bytes_per_step(MODELS[2]), sep="\n")
    for model in MODELS:
        print("", table(model), sep="\n")
    print("\n| step, ms, with one batch on | batch | 8 GPUs | 16 | 32 | 64 | 128 |\n|---|---|---|---|---|---|---|")
    print(*map(fixed_batch, MODELS), sep="\n")


if __name__ == "__main__":
    main()
