"""The ``xp`` shim: which array library holds an array, where new arrays are made, and how arrays move.

*The array decides.* :func:`xp_of` gives the namespace (``numpy`` or ``cupy``) of the array at hand, and every
operation of Kobai is written against it. The flag – :func:`use`, :func:`using`, the environment variable
``KOBAI_BACKEND`` – only decides where *new* arrays are made. NumPy is registered here and CuPy in ``cuda/backend.py``; only
``engine/``, ``cuda/`` and ``capture/`` import CuPy.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any, TypeAlias

import numpy as np

from kobai.errors import BackendError, LinAlgError, nearest

Array: TypeAlias = Any
"""An array of any backend: ``numpy.ndarray``, ``cupy.ndarray``. No common type exists, hence ``Any``."""

log = logging.getLogger("kobai")

# Inf and nan are silent, as on a GPU and in PyTorch; what users compute with NumPy themselves still warns. The filter goes by
# the module that called the ufunc. Where that is NumPy's own Python code, use ``quiet``.
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"kobai\.")

quiet = np.errstate(all="ignore")
"""Decorator for functions that call ``sum``, ``prod``, ``cumsum``, ``linalg`` and the like, where NumPy itself would warn of
inf and nan. Costs about a microsecond."""


NAMED_DEVICES = frozenset(
    "fpga hip hpu ideep ipu lazy maia meta mkldnn mps mtia opengl opencl ve vulkan xla xpu".split()
)
"""Types of devices that PyTorch knows and Kobai has not: programs compare with them."""


class device:  # PyTorch's spelling
    """Where a tensor lives: ``device("cpu")``, ``device("cuda")``, ``device("cuda:1")``.

    ``type`` names the backend (``"cpu"`` is NumPy, ``"cuda"`` is CuPy), ``index`` the GPU (``None`` on the CPU).
    PyTorch's other devices can be named and compared.

    >>> device("cuda:1").index, device("cpu")
    (1, device(type='cpu'))
    """

    __slots__ = ("index", "type")
    type: str
    index: int | None

    def __init__(self, type: str | device, index: int | None = None) -> None:
        if isinstance(type, device):
            index = type.index if index is None else index
            type = type.type
        if not isinstance(type, str):
            raise TypeError(f"device: expected a string such as 'cpu' or 'cuda:0', got {type!r}")
        kind, _, number = str(type).partition(":")
        if number:
            if not number.isdecimal():
                raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {type!r}")
            index = int(number)
        known = {b.device_type for b in _backends.values()}
        if kind not in known and kind not in NAMED_DEVICES:
            raise ValueError(f"device: expected 'cpu', 'cuda' or 'cuda:N', got {type!r}.{nearest(kind, known)}")
        if kind == "cpu" and index not in (None, 0):
            raise ValueError(f"device: there is one CPU device, got index {index}")
        self.type = kind
        self.index = None if kind == "cpu" else index

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return other in (str(self), f"{self.type}:{self.index or 0}") or (other == self.type and not self.index)
        return isinstance(other, device) and (self.type, self.index or 0) == (other.type, other.index or 0)

    def __hash__(self) -> int:
        return hash((self.type, self.index or 0))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __enter__(self) -> device:
        """``with device("cuda"):`` makes new arrays there inside the block, as :func:`using` does."""
        _scope.set((_resolve(str(self)), _scope.get()))
        return self

    def __exit__(self, *error: object) -> None:
        scope = _scope.get()
        _scope.set(scope and scope[1])

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"
        )


@dataclass(frozen=True)
class Backend:
    """One array library: its namespace, its array type, and what libraries do differently."""

    name: str
    device_type: str
    load: Callable[[], tuple[Any, type]] = field(repr=False)
    """Imports the library and checks that it can be used; returns (namespace, array type) or raises BackendError."""
    from_host: Callable[[np.ndarray], Array] = field(repr=False)
    to_host: Callable[[Array], np.ndarray] = field(repr=False)
    index_of: Callable[[Array], int | None] = field(default=lambda array: None, repr=False)
    on: Callable[[int | None], AbstractContextManager[Any]] = field(default=lambda index: nullcontext(), repr=False)
    synchronize: Callable[[], None] = field(default=lambda: None, repr=False)
    linalg_errors: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext, repr=False)
    inside: Callable[[Array], Array] | None = field(default=None, repr=False)
    """For arrays that hold others: the array inside, which is on a device."""


_backends: dict[str, Backend] = {}
_namespaces: dict[type, Any] = {}
_by_array: dict[type, Backend] = {}
namespaces = _namespaces.values()
array_types = _namespaces.keys()
"""The types of arrays of the libraries in use, without their subclasses."""


def register(backend: Backend) -> None:
    """Register a backend by name. Kobai has ``numpy`` and ``cupy`` (``kobai.cuda.backend``); the tests add ``strict``."""
    _backends[backend.name] = backend


after_read: Callable[[Array], None] | None = None
"""Called with a device array that was read: raises the faults that kernels have left there (``kobai.engine.faults``)."""


def adopt_array_type(array_type: type, namespace: Any, backend: Backend) -> None:
    """Register a second array type, with its own namespace, of a backend."""
    global _by_array
    _namespaces[array_type] = namespace
    _by_array = {**_by_array, array_type: backend}  # a new one: other threads may be going through it


def _ready(backend: Backend) -> Any:
    """Namespace of a backend, loaded at first use (importing CuPy takes a second)."""
    for array_type, known in _by_array.items():
        if known is backend:
            return _namespaces[array_type]
    namespace, array_type = backend.load()
    adopt_array_type(array_type, namespace, backend)
    return namespace


register(Backend("numpy", "cpu", lambda: (np, np.ndarray), from_host=lambda a: a, to_host=np.asarray))
_ready(_backends["numpy"])


def xp_of(array: Array) -> Any:
    """Namespace (``numpy``, ``cupy``) of the library that holds ``array``; TypeError for anything else.

    >>> xp_of(np.zeros(3)).__name__
    'numpy'
    """
    namespace = _namespaces.get(type(array))
    if namespace is None:
        if isinstance(array, (np.ndarray, np.generic)):  # subclasses such as memmap; scalars of reductions
            return _namespaces[np.ndarray]
        raise TypeError(f"xp_of: expected an array of a loaded backend, got {type(array).__name__}")
    return namespace


@contextmanager
def linalg_errors(array: Array, message: str) -> Iterator[None]:
    """Context in which what has no inverse or factor is a LinAlgError that says so; CuPy would return nan or worse."""
    try:
        with backend_of(array).linalg_errors():
            yield
    except np.linalg.LinAlgError as error:
        raise LinAlgError(message) from error


def differs(array: Array) -> bool:
    """Whether an array stands for one in each of many samples (``kobai.vmap``), and has no value of its own."""
    return getattr(array, "batched", False)


def is_array(obj: object) -> bool:
    """Whether ``obj`` is an array of a backend in use (a Tensor is not)."""
    return type(obj) in _namespaces or issubclass(type(obj), np.ndarray)  # isinstance would look through a weak proxy


def backend_of(array: Array) -> Backend:
    """The backend that holds ``array``."""
    found = _by_array.get(type(array))
    if found is None:
        xp_of(array)  # raises for what is no array at all
        found = _backends["numpy"]
    return found


def device_of(array: Array) -> device:
    """The device that holds ``array``."""
    owner = backend_of(array)
    if owner.inside is not None:
        return device_of(owner.inside(array))
    return device(owner.device_type, owner.index_of(array))


# --- where new arrays are made ----------------------------------------------------------------------------------------

_default: device | None = None
"""Set by :func:`use` or the environment, for all threads."""

_scope: ContextVar[tuple[device, Any] | None] = ContextVar("kobai_device", default=None)
"""Device of the innermost ``with using(...)`` or ``with device(...)`` of this thread, and the scope around it."""

many_devices = False
"""Whether any GPU but the first was ever used. Only then do operations switch the current device."""


def _resolve(name: str) -> device:
    """Device of a backend ('numpy', 'cupy', 'auto') or a device name ('cpu', 'cuda:1'); it must be usable."""
    if name == "auto":
        try:
            _ready(_backends["cupy"])
        except BackendError as error:
            log.warning("backend auto: numpy, because %s", error)
            return device("cpu")
        log.info("backend auto: cupy, a CUDA device answers")
        return device("cuda", 0)
    if name in _backends:
        found = device(_backends[name].device_type)
    else:
        try:
            found = device(name)
        except ValueError as error:
            known = ["auto", *_backends]
            raise BackendError(
                f"backend: expected {', '.join(known)} or a device such as 'cuda:0', got {name!r}.{nearest(name, known)}"
            ) from error
    return _usable(found)[0]


def _usable(where: device | str | None) -> tuple[device, Backend]:
    """A device, by default that of new arrays, and its backend, loaded."""
    global many_devices
    target = default_device() if where is None else device(where)
    owner = _of_device(target)
    _ready(owner)
    many_devices = many_devices or bool(target.index)
    return target, owner


def _of_device(where: device) -> Backend:
    if found := [b for b in _backends.values() if b.device_type == where.type]:
        return found[0]
    known = "kobai computes on the CPU and, with CuPy, on CUDA"
    instead = ": func.functional_call leaves a model's own parameters alone" if where.type == "meta" else ""
    raise BackendError(f"device: {known}, and has no {where.type!r}, unlike torch{instead}")


def default_device() -> device:
    """The device on which new arrays are made: that of :func:`using` in this thread, else of :func:`use`, else of
    ``KOBAI_BACKEND``, else the CPU.

    >>> import kobai
    >>> with kobai.using("numpy"):
    ...     kobai.get_default_device()
    device(type='cpu')
    """
    global _default
    scope = _scope.get()
    if scope is not None:
        return scope[0]
    if _default is None:
        named = os.environ.get("KOBAI_BACKEND") or "numpy"
        try:
            _default = _resolve(named)
        except BackendError as error:
            raise BackendError(f"KOBAI_BACKEND={named}: {error}") from error
    return _default


def use(backend: str | device) -> None:
    """Make new arrays on ``backend`` from now on: ``"numpy"``, ``"cupy"``, ``"auto"``, or a device (``"cuda:1"``).

    ``auto`` takes CuPy if it imports and finds a device, else NumPy, and logs which and why. An explicit ``cupy`` that is
    not available raises :class:`~kobai.errors.BackendError` with the cause and the install line. The choice holds for all
    threads; inside a block of :func:`using`, for the rest of the block.

    >>> import kobai
    >>> kobai.use("numpy")
    >>> kobai.backend()
    'numpy'
    """
    global _default
    found, scope = _resolve(str(backend)), _scope.get()
    if scope is None:
        _default = found
    else:
        _scope.set((found, scope[1]))


@contextmanager
def using(backend: str | device) -> Iterator[None]:
    """Block in which this thread makes new arrays on ``backend``.

    So do the workers of a ``DataLoader`` that is iterated over in the block.

    >>> import kobai
    >>> with kobai.using("numpy"):
    ...     kobai.zeros(2).device
    device(type='cpu')
    """
    before = _scope.get()
    try:
        _scope.set((_resolve(str(backend)), before))
        yield
    finally:
        _scope.set(before)


def backend() -> str:
    """Name of the backend on which new arrays are made (``"numpy"`` or ``"cupy"``).

    >>> import kobai
    >>> with kobai.using("numpy"):
    ...     kobai.backend()
    'numpy'
    """
    return _of_device(default_device()).name


def available_backends() -> dict[str, str]:
    """Every backend by name, with ``""`` if it can be used and otherwise the reason why not.

    >>> available_backends()["numpy"]
    ''
    """
    report = {}
    for known in _backends.values():
        try:
            _ready(known)
            report[known.name] = ""
        except BackendError as error:
            report[known.name] = str(error)
    return report


# --- recording --------------------------------------------------------------------------------------------------------

sessions: dict[int, Any] = {}
"""What is at work in which thread: the sessions (``kobai.capture.session``) by thread. Empty nearly always: then asking
costs no more than a look at a variable. Entries come and go in ``Session`` alone."""


def recorder() -> Any:
    """What records in this thread at this moment: the recorder of its session, None if it has none."""
    return getattr(sessions.get(get_ident()), "recorder", None) if sessions else None


# --- making and moving ------------------------------------------------------------------------------------------------


def namespace(where: device | str | None = None) -> Any:
    """Namespace that makes arrays on ``where`` (default: the default device)."""
    target = default_device() if where is None else device(where)
    if sessions and target.type == "cpu" and (noting := getattr(recorder(), "namespace", None)) is not None:
        return noting
    return _ready(_of_device(target))


def on(where: device | str | None = None) -> AbstractContextManager[Any]:
    """Context in which the arrays made by :func:`namespace` of ``where`` land on that device."""
    target, owner = _usable(where)
    return owner.on(target.index)


def beside(array: Array) -> AbstractContextManager[Any]:
    """Context in which work on ``array`` runs, and makes its results, on its device; needed only if there are several."""
    return on(device_of(array)) if many_devices else _HERE


_HERE = nullcontext()


def write(array: Array, values: Any) -> None:
    """array[...] ← values, broadcast and cast, on the device of ``array``."""
    if many_devices:
        with beside(array):
            array[...] = values
    else:
        array[...] = values


def asarray(obj: Any, dtype: Any = None, device: device | str | None = None) -> Array:
    """``obj`` (an array of any backend, a nested list, a number) as an array on ``device``, copied only if necessary.

    Without ``device``, arrays stay where they are and everything else goes to the default device.
    """
    if is_array(obj):
        if isinstance(obj, np.ndarray) and type(obj) is not np.ndarray:
            obj = np.asarray(obj)  # memmap, matrix, ...: their operators may mean something else
        return move(obj if dtype is None else obj.astype(dtype, copy=False), device)
    host = np.asarray(obj, dtype=dtype)
    target = default_device() if device is None else device
    if sessions and str(target) == "cpu" and (noting := getattr(recorder(), "namespace", None)) is not None:
        return noting.asarray(host)
    return move(host, target)


def move(array: Array, where: device | str | None) -> Array:
    """``array`` on the device ``where``; the same object if it is already there or ``where`` is None."""
    if where is None:
        return array
    here, (target, owner) = device_of(array), _usable(where)
    if target == here or (target.type == here.type and target.index is None):
        return array
    with owner.on(target.index):
        return owner.from_host(to_host(array))


def table(host: np.ndarray, where: device | str) -> Array:
    """A constant array on ``where``. On the host it is read-only, which marks it as constant."""
    made = move(host, where)
    if type(made) is np.ndarray:
        made.flags.writeable = False
    return made


def to_host(array: Array) -> np.ndarray:
    """``array`` as a ``numpy.ndarray``: a copy from a device, the same memory on the host."""
    if type(array) is np.ndarray:
        return array
    host = backend_of(array).to_host(array)
    if after_read is not None:
        after_read(array)
    return host


def synchronize(where: device | str | None = None) -> None:
    """Wait until the work queued on ``where`` is done; returns at once on the CPU."""
    target, owner = _usable(where)
    with owner.on(target.index):
        owner.synchronize()
