"""Seeds and streams of random numbers, the same on every backend.

Two streams come from one seed. The *host stream* (``numpy.random.Generator``, PCG64) draws initial weights, shuffles and
samples, which are then copied to where they are needed: identical on every backend by construction. The *counter stream*
(Philox 4×64-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) draws dropout masks:
its n-th block is a pure function of key and n, so any device computes the same mask on its own, and one number, the
counter, restores it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from kobai import xp
from kobai.refusals import guard as _guard
from kobai.xp import device as Device

__all__ = [
    "fork_rng",
    "Generator",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "seed",
    "set_rng_state",
]


class Generator:
    """Source of random numbers: a seed, a host stream and a counter stream.

    A new generator starts from a fixed seed, as PyTorch's does; :meth:`manual_seed` sets another, :meth:`seed` draws one
    from the operating system, as the default generator does. One generator serves every device: ``device`` (PyTorch's
    first argument) is kept, and changes no number.

    >>> import kobai
    >>> g = kobai.Generator().manual_seed(3)
    >>> a = g.numpy.random(2)
    >>> bool((g.manual_seed(3).numpy.random(2) == a).all())
    True
    """

    _parts: Parts | None = None
    """Inside a step of several shards: the host streams of the shards."""

    def __init__(self, device: str | Device = "cpu", *, seed: int = 67280421310721) -> None:
        self.device = Device(device)
        self.manual_seed(seed)

    def _capture_watch(self, walk: Any) -> None:
        """A captured step draws from the counter stream as it is at each replay, and may not draw from the host stream."""

    def __repr__(self) -> str:
        return f"<kobai.Generator for {self.device}>"

    def manual_seed(self, seed: int) -> Generator:
        """Restart both streams from ``seed`` (an integer, taken modulo 2⁶⁴)."""
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"manual_seed: expected an integer, got {seed!r}")
        if xp.sessions and (recorder := xp.recorder()) is not None:
            recorder.host_seed()
        self._seed = int(seed) % 2**64
        self.counter = 0
        for stream in ("_numpy", "key"):
            self.__dict__.pop(stream, None)  # begins anew when it is next asked for
        return self

    @cached_property
    def _numpy(self) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64(self._seed))

    @cached_property
    def key(self) -> list[int]:
        """Key of the counter stream. SeedSequence makes nearby seeds independent; the spawn key, the two streams."""
        return [int(k) for k in np.random.SeedSequence(self._seed, spawn_key=(1,)).generate_state(2, np.uint64)]

    @property
    def numpy(self) -> np.random.Generator:
        """The host stream."""
        if xp.sessions and (recorder := xp.recorder()) is not None:
            recorder.host_draw()
        return self._numpy if self._parts is None else self._parts.stream(self._numpy)

    def seed(self) -> int:
        """Draw a new seed from the operating system, start from it, and return it."""
        self.manual_seed(_from_the_system())
        return self._seed

    def initial_seed(self) -> int:
        """The seed that the streams were last started from."""
        return self._seed

    def take_blocks(self, n: int) -> int:
        """Reserve ``n`` blocks (of four 64-bit words) of the counter stream; returns the first one's number."""
        first = self.counter
        self.counter += n
        return first

    def get_state(self) -> dict[str, Any]:
        """Everything needed to continue from here, as a dict that JSON can hold."""
        return {"seed": self._seed, "counter": self.counter, "numpy": self._numpy.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from a state of :meth:`get_state`."""
        if not isinstance(state, dict) or not {"seed", "counter", "numpy"} <= state.keys():
            raise TypeError(f"set_state: expected a dict made by get_state, got {type(state).__name__}")
        self.manual_seed(state["seed"])
        self.counter = int(state["counter"])
        self._numpy.bit_generator.state = state["numpy"]


class Parts:
    """Host streams of the parts of a step, such as its shards, far apart from each other in the generator's own.

    Part s draws from where the stream would be after s + 1 jumps (of PCG64's, 0.62 · 2¹²⁸ numbers each), and if any has drawn,
    the generator goes on after one jump more than there are parts. Where that is depends on no part's number of draws.
    """

    def __init__(self, count: int) -> None:
        self.count, self.number, self.drew = count, 0, False
        self._stream: np.random.Generator | None = None

    def begin(self, number: int, stream: np.random.Generator | None = None) -> None:
        """Part ``number`` draws from now on, from the stream of its :meth:`place` if it has drawn before."""
        self.number, self._stream = number, stream

    def place(self) -> tuple[int, np.random.Generator | None]:
        """The present part, and its stream if it has drawn."""
        return self.number, self._stream

    def stream(self, whole: np.random.Generator) -> np.random.Generator:
        """The present part's stream, of a generator with the stream ``whole``."""
        if self._stream is None:
            self.drew, self._stream = True, _jumped(whole, self.number + 1)
        return self._stream

    def end(self, generator: Generator) -> None:
        """The step is over: the generator itself goes on."""
        generator._parts = None
        if self.drew:
            generator._numpy, self.drew = _jumped(generator._numpy, self.count + 1), False


def _jumped(stream: np.random.Generator, jumps: int) -> np.random.Generator:
    bits: Any = stream.bit_generator
    return np.random.Generator(bits.jumped(jumps))


def _from_the_system() -> int:
    return int.from_bytes(os.urandom(8)) >> 1


default_generator = Generator(seed=_from_the_system())


within: Callable[[Generator], Generator] | None = None
"""What a generator is inside ``vmap``, once that is in use (``autograd/batching/randomness.py``)."""

tensor_within: Callable[[Any], Any] | None = None
"""What a tensor is there, of which a part is drawn by chance."""


def resolve(generator: Generator | None) -> Generator:
    """The generator of a ``generator=None`` argument: the default one."""
    if generator is None:
        generator = default_generator
    elif not isinstance(generator, Generator):
        raise TypeError(f"generator: expected a kobai.Generator, got {type(generator).__name__}")
    return generator if within is None else within(generator)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, which everything random draws from unless told otherwise; returns it.

    >>> import kobai
    >>> _ = kobai.manual_seed(0); a = kobai.rand(3)
    >>> _ = kobai.manual_seed(0); kobai.equal(a, kobai.rand(3))
    True
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the operating system; returns the seed.

    >>> import kobai
    >>> kobai.seed() == kobai.initial_seed()
    True
    """
    return default_generator.seed()


def initial_seed() -> int:
    """The seed that the default generator was last started from.

    >>> import kobai
    >>> _ = kobai.manual_seed(42)
    >>> kobai.initial_seed()
    42
    """
    return default_generator.initial_seed()


def get_rng_state() -> dict[str, Any]:
    """State of the default generator, as a dict that JSON can hold.

    >>> import kobai
    >>> state = kobai.get_rng_state()
    >>> x = kobai.rand(3)
    >>> kobai.set_rng_state(state)
    >>> kobai.equal(x, kobai.rand(3))
    True
    """
    return default_generator.get_state()


def set_rng_state(new_state: dict[str, Any]) -> None:
    """Set the default generator to a state of :func:`get_rng_state`.

    >>> import kobai
    >>> state = kobai.get_rng_state()
    >>> x = kobai.randperm(10)
    >>> kobai.set_rng_state(state)
    >>> kobai.equal(x, kobai.randperm(10))
    True
    """
    default_generator.set_state(new_state)


@contextmanager
def fork_rng(
    devices: Iterable[Any] | None = None, enabled: bool = True, *, device_type: str = "cuda"
) -> Iterator[None]:
    """Block after which the default generator continues as if nothing had been drawn inside.

    One generator serves every device, so ``devices`` and ``device_type`` change nothing.

    >>> import kobai
    >>> with kobai.random.fork_rng():
    ...     _ = kobai.manual_seed(0)
    """
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


_guard(globals())
