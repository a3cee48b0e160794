"""Which engine runs a kernel, and the one door through which kernels are started.

A kernel has a reference, written against ``xp``, that runs on any array library. Beside it may stand faster twins: loops
compiled by Numba for host arrays, and CUDA C for CuPy arrays (:func:`kernel`). The arrays and what is installed decide which
runs, never the caller: :func:`engine_for`. What twins start goes through :func:`launch`, so that a step being recorded can
note it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial, update_wrapper
from operator import itemgetter
from types import FunctionType, ModuleType
from typing import Any, Literal, ParamSpec, TypeVar

import numpy as np

from kobai import xp
from kobai.dtypes import FLOATING
from kobai.engine import disk_cache, notices, own_code
from kobai.xp import Array, recorder, sessions

HOST_TYPES: set[type] = {np.ndarray}
"""Array types whose elements lie in host memory; ``kobai.capture`` adds that of a recorded step."""

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ValueError:  # sys.modules holds None: switched off
        return False


numba_installed = _installed("numba")


HOST: Literal["host"] = "host"
DEVICE: Literal["device"] = "device"
"""The engines of twins: loops that Numba compiled, and CUDA C."""


def loops_run(dtype: Any) -> bool:
    """Whether there are compiled loops for host arrays of this dtype."""
    return numba_installed and dtype in FLOATS


def engine_for(arrays: Sequence[Array | None], halves: bool = False) -> str | None:
    """The engine whose twins can take these arrays, :data:`HOST` or :data:`DEVICE`; None if that is only the reference.

    Twins take contiguous arrays of one float dtype: on the host float32 and float64, on a device also those of 16
    bits if the kernel knows them (``halves``). None among the arrays does not count.
    """
    dtype = None
    for array in arrays:
        if array is not None:
            if type(array) not in HOST_TYPES:
                return _device_for(arrays, halves)
            if array.dtype is not dtype:
                if dtype is not None and array.dtype != dtype:
                    return None
                dtype = array.dtype
            if not array.flags.c_contiguous:
                return None
    return HOST if numba_installed and dtype is not None and dtype in FLOATS else None


def _device_for(arrays: Sequence[Array | None], halves: bool) -> str | None:
    given = [array for array in arrays if array is not None]
    dtype = given[0].dtype
    if dtype.kind not in FLOATING or (dtype.itemsize < 4 and not halves):
        return None
    takes = all(xp.backend_of(a).name == "cupy" and a.dtype == dtype and a.flags.c_contiguous for a in given)
    return DEVICE if takes else None


P = ParamSpec("P")
R = TypeVar("R")


TABLE: dict[Callable[..., Any], dict[str | None, Callable[..., Any]]] = {}
"""What every function that :func:`kernel` made runs, by engine: its twins, and the reference where there is none."""


def kernel(
    *arrays: str, when: Callable[..., Any] | None = None, halves: bool = False
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: a reference beside which twins may stand. The function runs the twin that takes its arrays, else itself::

        @kernel("x", "bias")
        def add_bias(x, bias): ...

        @host(add_bias)
        def _add_bias_numba(x, bias): ...

    The parameters named ``arrays`` decide (:func:`engine_for`). ``when``, given all arguments, says whether twins can take
    them beyond that; ``halves``, whether the device's twin knows floats of 16 bits. All arguments are positional.
    """

    def made(reference: Callable[P, R]) -> Callable[P, R]:
        parameters = list(inspect.signature(reference).parameters)
        places = [parameters.index(name) for name in arrays]
        leading = places == list(range(len(places)))
        deciding = itemgetter(*([slice(len(places))] if leading else places))
        by_engine: dict[str | None, Callable[P, R]] = dict.fromkeys((None, HOST, DEVICE), reference)

        # Closures without defaults or keywords, for this comes before every small operation.
        def plain(*args: Any) -> Any:
            return by_engine[engine_for(deciding(args), halves)](*args)  # type: ignore[call-arg]

        def conditional(*args: Any) -> Any:
            return by_engine[engine_for(deciding(args), halves) if when(*args) else None](*args)  # type: ignore[call-arg, misc]

        function: Callable[..., Any] = plain if when is None else conditional
        update_wrapper(function, reference)
        TABLE[function] = by_engine
        return function

    return made


def host(function: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the twin of a :func:`kernel` that runs compiled loops."""
    return partial(_register, function, HOST)


def device(function: Callable[P, R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: the twin of a :func:`kernel` that runs CUDA C."""
    return partial(_register, function, DEVICE)


def _register(function: Callable[P, R], engine: str, twin: Callable[P, R]) -> Callable[P, R]:
    TABLE[function][engine] = twin
    return twin


def launch(kernel: Callable[..., Any], *args: Any) -> None:
    """Run a compiled kernel on arrays and numbers; it writes into some of the arrays and returns nothing."""
    if sessions and (at_work := recorder()) is not None:
        at_work.launch(kernel, args)
    else:
        kernel(*args)


class Count:
    """Counts that the host moves on at every step, called like a function; undone if the step fails before what it counts."""

    __slots__ = ()

    def __call__(self) -> Any:
        """Move the counts on; returns the numbers of :func:`numbers`, or nothing."""
        raise NotImplementedError

    def save(self) -> Any:
        """The counts as they are."""
        raise NotImplementedError

    def restore(self, saved: Any) -> None:
        """Set the counts back to what :meth:`save` returned."""
        raise NotImplementedError


def check(look: Callable[..., None], *args: Any) -> None:
    """Check the values of an array by ``look(*args)``, which raises if they are illegal and changes nothing.

    A captured step repeats the check at every replay, at this place among the operations. ``look`` itself skips arrays that
    are not on the host.
    """
    if sessions and (at_work := recorder()) is not None:
        at_work.check(look, args)
    else:
        look(*args)


def numbers(compute: Callable[[], tuple[float, ...]], dtype: Any) -> Any:
    """Numbers that the host computes anew at every step: a learning rate, a bias correction, a random counter.

    ``compute()`` is called once in every step; if it moves counts on, it is a :class:`Count`. It must not look at arrays.
    Returned is its tuple, or in a captured step an array (1-D, of ``dtype``) that every replay fills before it is read:
    kernels take either.
    """
    at_work = recorder()
    return compute() if at_work is None else at_work.numbers(compute, np.dtype(dtype))


def on_host(action: Callable[[], None]) -> None:
    """Run what every step does on the host, such as moving a learning rate on; replays run it too."""
    at_work = recorder()
    if at_work is None:
        action()
    else:
        at_work.host(action)


class compiled:
    """Decorator: a loop over host arrays that Numba compiles for each combination of dtypes at its first call.

    The machine code is kept on disk (``disk_cache.py``). The loop runs without the interpreter's lock, in one thread.
    Sums may be added up in vector lanes (``reassoc``), and products fused into them (``contract``); NaN and infinity follow
    IEEE. It owns no memory (``_nrt``): a slice of an array costs no atomic counting of references, 5 ns each, and a loop
    that would make an array does not compile.
    """

    flags = frozenset(("reassoc", "contract", "nsz", "arcp"))
    merged = False  # always into the loops that call it

    def __init__(self, function: Callable[..., Any], signatures: Callable[[Any], list[Any]] | None = None) -> None:
        self.function, self.signatures = function, signatures
        self.dispatcher: Any = None
        update_wrapper(self, function)

    def __call__(self, *args: Any) -> Any:
        return (self.dispatcher or self.compile())(*args)

    def compile(self) -> Any:
        """The Numba dispatcher; imports Numba, which takes about a second."""
        if self.dispatcher is None:
            numba = importlib.import_module("numba")
            notices.hear_numba()
            options = {"nogil": True, "error_model": "numpy", "fastmath": set(self.flags), "_nrt": False}
            options |= {"no_cfunc_wrapper": True}  # an entry for C, which nobody calls, is 5 % of the time of compiling
            options |= {"forceinline": True} if self.merged else {}
            signatures = None if self.signatures is None else self.signatures(numba.types)
            self.dispatcher = disk_cache.loop(_linked(self.function), stamp(self.function), signatures, options)
        return self.dispatcher

    @property
    def known(self) -> Any:
        """What Numba calls by this name."""
        return self.compile()

    @property
    def source(self) -> Any:
        """The function that is compiled."""
        return self.function


def compiled_for(signatures: Callable[[Any], list[Any]]) -> Callable[[Callable[..., Any]], compiled]:
    """Decorator: :class:`compiled` for these types alone, made of Numba's, and not for every kind of arguments that comes."""
    return partial(compiled, signatures=signatures)


class in_order(compiled):
    """Decorator: :class:`compiled` for loops without sums, whose terms and factors meet in the order that is written.

    Else LLVM puts them in the order that is fastest on this processor, and the bits are others on another one. So they are
    where it chooses which of two products is fused into a sum: ``engine.fused.fma`` says it.
    """

    flags = compiled.flags - {"reassoc", "contract"}


class as_written(compiled):
    """Decorator: a function for use inside :class:`compiled` loops whose sums are not to be rearranged."""

    flags = frozenset(("contract",))


class merged(as_written):
    """Decorator: :class:`as_written`, and so small that LLVM always merges it into the loop."""

    merged = True


class inlined:
    """A function of numbers for use inside :class:`compiled` loops: a version for 32 bits (float32) and one for 64.

    LLVM merges it into the loop and vectorises both together. Its arithmetic is done as written, products fused into sums only
    by ``engine.fused.fma``. Without one for 32 bits that for 64 is used, and its result rounded.
    """

    def __init__(self, single: Callable[..., Any] | None, double: Callable[..., Any]) -> None:
        self.single, self.double = single, double

    def __call__(self, *numbers: Any) -> Any:
        raise TypeError(f"{self.double.__name__}: is a function for compiled loops")

    @cached_property
    def known(self) -> Any:
        """What Numba calls by this name."""
        numba = importlib.import_module("numba")
        known: Any = lambda *numbers: None  # noqa: E731
        double = _linked(self.double)
        alone = len(inspect.signature(self.double).parameters) == 1
        of_double = (
            (lambda x: np.float32(known(np.float64(x))))
            if alone
            else (lambda x, y: np.float32(known(np.float64(x), np.float64(y))))
        )
        versions = {32: of_double if self.single is None else _linked(self.single), 64: double}

        of_one: Any = lambda x: versions.get(getattr(x, "bitwidth", 0))  # noqa: E731
        of_two = lambda x, y: of_one(x)  # noqa: E731
        options = {
            "fastmath": False,
            "error_model": "numpy",
            "forceinline": True,
        }  # said, or the loop's would be theirs
        numba.extending.overload(known, jit_options=options)(of_one if alone else of_two)
        return known


def llvm_ir() -> Any:
    """llvmlite's module for building code, which an :class:`instruction` uses."""
    return importlib.import_module("llvmlite.ir")  # comes with Numba


class instruction:
    """Decorator: something that a processor can do and Numba cannot say, for use inside :class:`compiled` loops.

    The function is given LLVM's builder and the operands, builds the instruction, and returns its result, if there is one.
    Operands and results are integers of 64 bits; addresses are such integers.
    """

    def __init__(self, build: Callable[..., Any]) -> None:
        self.build = build
        update_wrapper(self, build)

    def __call__(self, *operands: Any) -> Any:
        raise TypeError(f"{self.build.__name__}: is an instruction for compiled loops")

    @cached_property
    def known(self) -> Any:
        """What Numba calls by this name."""
        numba = importlib.import_module("numba")
        parameters = list(inspect.signature(self.build).parameters.values())
        returns = self.build.__annotations__["return"] not in (None, "None")
        result = numba.types.int64 if returns else numba.types.void
        signature = result(*[numba.types.int64] * (len(parameters) - 1))

        def build(context: Any, builder: Any, signature: Any, operands: Any) -> Any:
            built = self.build(builder, *operands)
            return built if returns else context.get_dummy_value()

        def typing(context: Any, *operands: Any) -> Any:
            return signature, build

        typing.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # Numba reads the parameters' names
            [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
        )
        return numba.extending.intrinsic(typing)


class entry:
    """Decorator: a loop of integers for :class:`compiled` ones to call by its ``address``, which is compiled by itself.

    A compiled function takes in a copy of the machine code of what it calls; large code is called by address instead.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = function

    @cached_property
    def address(self) -> int:
        """Where the machine code begins."""
        numba = importlib.import_module("numba")
        notices.hear_numba()
        integers = (numba.types.int64,) * len(inspect.signature(self.function).parameters)
        options = {"error_model": "numpy", "fastmath": set(compiled.flags), "_nrt": False}
        function, signature = _linked(self.function), numba.types.void(*integers)
        self._code = disk_cache.callback(function, stamp(self.function), signature, options)  # must stay alive
        return int(self._code.address)


KINDS = (compiled, in_order, as_written, merged, inlined, entry)
"""What compiled code is held by."""


@cache
def _reads(function: FunctionType) -> tuple[tuple[FunctionType, ...], tuple[str, ...]]:
    """The functions that end in the code of this one if it is compiled, and the constants, each with its name."""
    functions: list[FunctionType] = []
    constants: list[str] = []
    known = inspect.getclosurevars(function)
    for name, value in {**known.globals, **known.nonlocals}.items():
        if isinstance(value, compiled):
            functions.append(value.source)
            constants.append(f"{name}: {sorted(value.flags)} {value.merged}")
        elif isinstance(value, inlined):
            functions += [f for f in (value.single, value.double) if f is not None]  # type: ignore[misc]
        elif isinstance(value, instruction):
            functions.append(value.build)  # type: ignore[arg-type]
        elif isinstance(value, FunctionType):
            functions.append(value)
        elif all(isinstance(v, (int, float, str, np.number)) for v in (value if isinstance(value, tuple) else [value])):
            constants.append(f"{name} = {value!r}")
    return tuple(functions), tuple(constants)


def stamp(function: Any) -> bytes:
    """A digest of what the machine code of a function is made from: the files of it and of all that it links, and constants."""
    reached, todo = set(), [function]
    while todo:
        if (next := todo.pop()) not in reached:
            reached.add(next)
            todo += _reads(next)[0]
    files = {each.__code__.co_filename for each in reached} | {__file__, own_code.__file__}  # how they are compiled
    parts = {f"{os.path.basename(file)} {disk_cache.digest_of(file).hex()}" for file in files}
    constants = {line for each in reached for line in _reads(each)[1]}
    return disk_cache.sha256("\n".join([*sorted(parts), *sorted(constants)]).encode())


def _linked(function: Any) -> Any:
    """A copy of ``function`` without annotations, whose globals hold Numba's versions of what Kobai compiles."""
    known = dict(function.__globals__)
    for name in function.__code__.co_names:
        value = known.get(name)
        if isinstance(value, (compiled, inlined, instruction)):
            known[name] = value.known
        elif isinstance(value, tuple) and hasattr(value, "_asdict"):
            # To read one of its numbers Numba would build the whole tuple, each time; a module's are constants.
            known[name] = module = ModuleType(name)
            vars(module).update(value._asdict())
    linked = FunctionType(function.__code__, known, function.__name__, function.__defaults__, function.__closure__)
    linked.__qualname__, linked.__module__ = function.__qualname__, function.__module__
    return linked
