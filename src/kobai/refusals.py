"""Errors of the array library and of Python, put into Kobai's words where they would reach the user.

A function checks what it can name. What it does not foresee – a string for a tensor, a ragged list for a shape – ends in an
error of NumPy, CuPy or Python's own from some line deep inside. :func:`guarded` catches it at the door, looks which argument
is not what the signature says, and raises what names the function, the argument, what was expected and what came. The
original stays in view as the cause.

Nothing is checked beforehand: a call that works pays one more Python call, and only the user's pays it, as the public names
are wrapped and what Kobai's files import from each other is not.

The same door sees to the device: where several GPUs are in use, a function runs on that of the first tensor it is given.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from kobai import xp
from kobai.errors import ArgumentError, LinAlgError, OutOfMemoryError

_RAISE = {dis.opmap["RAISE_VARARGS"], dis.opmap["RERAISE"]}
_HERE = str(Path(__file__).parent)
LIBRARIES = {"numpy", "cupy", "cupy_backends", "numba", "ml_dtypes", *sys.stdlib_module_names} - {"__main__"}
"""Packages whose errors are put into our words: those that Kobai calls, and never the user's own code."""

_BINDING = (
    "positional argument",
    "unexpected keyword argument",
    "keyword-only argument",
    "multiple values for argument",
)
_KEPT: dict[Callable[..., Any], Callable[..., Any]] = {}


def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose errors of others reach the caller in Kobai's words. The same wrapper at every call."""
    known = _KEPT.get(function)
    if known is not None:
        return known

    stays = not names_a_device(function)

    def call(*args: Any, **options: Any) -> Any:
        try:
            if stays and xp.many_devices:
                return beside_first(function, args, options)
            return function(*args, **options)
        except Exception as error:
            reword(error, function, args, options)
            raise

    call.__name__, call.__qualname__, call.__module__ = function.__name__, function.__qualname__, function.__module__
    call.__doc__ = function.__doc__
    call.__dict__.update(function.__dict__, __wrapped__=function)
    _KEPT[function] = _KEPT[call] = call
    return call


def names_a_device(function: Callable[..., Any]) -> bool:
    """Whether a function may be told a device: ``"cuda"`` is then the current one, wherever its tensors are."""
    code = function.__code__
    return (
        function.__name__ in ("to", "cuda") or "device" in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    )


def beside_first(function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """The call of a function on the device of the first tensor among its arguments, or in a list of them."""
    first = _first_array((*args, *options.values()))
    if first is None:
        return function(*args, **options)
    with xp.beside(first):
        return function(*args, **options)


def _first_array(values: Iterable[Any]) -> Any:
    for value in values:
        if isinstance(value, (tuple, list)):
            value = _first_array(value)
            if value is not None:
                return value
        elif (array := getattr(value, "_array", None)) is not None and xp.is_array(array):
            return array
    return None


def guards(wrapper: Callable[..., Any], function: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """Say that a function does itself what :func:`guarded` would do around it; or around another, in whose place it stands."""
    _KEPT[wrapper] = wrapper
    if function is not None:
        _KEPT[function] = wrapper
    return wrapper


def guard(namespace: dict[str, Any], classes: bool = False) -> None:
    """Put :func:`guarded` around the public functions of a module, as far as they are Kobai's own.

    With ``classes`` around the constructors and public methods of its classes too, but for ``forward``: a module's call
    looks after that.
    """
    for name, value in list(namespace.items()):
        if name[0] == "_" or not getattr(value, "__module__", "").startswith("kobai"):
            continue
        if type(value) is FunctionType:
            home = vars(sys.modules[value.__module__])  # there too, where pickle and doctest look for it
            namespace[name] = wrapper = guarded(value)
            if home.get(wrapper.__name__) is value:
                home[wrapper.__name__] = wrapper
        elif classes and isinstance(value, type):
            for owner in value.__mro__:
                if owner not in _GUARDED and owner.__module__.startswith("kobai"):
                    _GUARDED.add(owner)
                    _guard_class(owner)


_GUARDED: set[type] = set()


def _guard_class(owner: type) -> None:
    for name, value in list(vars(owner).items()):
        if type(value) is FunctionType and (name == "__init__" or (name[0] != "_" and name != "forward")):
            setattr(owner, name, guarded(value))


def reword(
    error: Exception, function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any], who: str = ""
) -> None:
    """Raise :func:`in_our_words` with the error as its cause, unless that is the error itself."""
    clear = in_our_words(error, function, args, options, who)
    if clear is not error:
        raise clear from error


def in_our_words(
    error: Exception, function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any], who: str = ""
) -> Exception:
    """The error itself if Kobai or the user's own code raised it, or if it is a fault of ours, which no other arguments would
    mend; else a new one that names function and arguments.

    ``who`` is what the message calls the function, if not by its name.
    """
    if isinstance(error, _FAULTS) or raised_here(error):
        return error
    said = str(error)
    if isinstance(error, TypeError) and any(words in said for words in _BINDING) and f"{function.__name__}()" in said:
        return error
    who = who or _name(function, args)
    reason = said.splitlines()[0].rstrip(".") if said else type(error).__name__
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"{who}: out of memory ({reason})")
    given = _bound(function, args, options)
    tensors = [value for value, _ in given.values() if hasattr(value, "dtype") and hasattr(value, "shape")]
    if "broadcast" in said and isinstance(error, ValueError):
        return shapes_apart(who, tensors)
    if "boolean" in said and isinstance(error, TypeError):
        return truth_values(who, *(value.dtype for value in tensors))
    for name, (value, annotation) in given.items():
        if not _fits(value, annotation):
            return TypeError(f"{who}: expected {name} as {_article(annotation)}, got {described(value)}")
    kind = next((ours for theirs, ours in _KINDS.items() if isinstance(error, theirs)), type(error))
    listed = ", ".join(f"{name} {described(value)}" for name, (value, _) in given.items())
    return kind(f"{who}: expected other arguments, got {listed} ({reason})" if listed else f"{who}: {reason}")


def truth_values(who: str, *dtypes: Any) -> NotImplementedError:
    """The error of an operation that has no result for truth values."""
    given = " and ".join(map(str, dtypes))
    return NotImplementedError(f"{who}: expected numbers, got {given}; a mask is inverted by ~mask, compared by ^")


def shapes_apart(who: str, tensors: Iterable[Any]) -> RuntimeError:
    """The error of an operation on shapes that do not broadcast."""
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors)
    return RuntimeError(f"{who}: expected shapes that broadcast together, got {shapes}")


_KINDS: dict[type[Exception], type[Exception]] = {
    np.linalg.LinAlgError: LinAlgError,
    IndexError: IndexError,
    OverflowError: OverflowError,
    TypeError: TypeError,
    AttributeError: TypeError,
    ValueError: ArgumentError,
    ArithmeticError: ArgumentError,
}
"""What is raised for an error of another library: PyTorch's type for the like. The first that fits; others stay."""


_FAULTS = (NameError, AssertionError, RecursionError, ImportError, Warning, OSError)
"""Errors that a wrong argument does not cause, or that name the file it means; and warnings that the user made errors."""


def raised_here(error: BaseException) -> bool:
    """Whether a ``raise`` of Kobai's is the innermost of what led to an error, or a line of the user's is among it."""
    last, traceback = None, error.__traceback__
    while traceback is not None:
        last = traceback
        name = str(traceback.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if not traceback.tb_frame.f_code.co_filename.startswith((_HERE, "<")) and name not in LIBRARIES:
            return True
        traceback = traceback.tb_next
    if last is None or not str(last.tb_frame.f_globals.get("__name__", "")).startswith("kobai"):
        return False
    return last.tb_frame.f_code.co_code[last.tb_lasti] in _RAISE


def _name(function: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """``relu``, also of Tensor's; of a class ``Linear`` for its constructor, ``SGD.step`` for a method."""
    name = function.__name__
    if "self" not in inspect.signature(function).parameters or not args:
        return name.strip("_")
    owner = type(args[0]).__name__
    return owner if name == "__init__" else name if owner == "Tensor" else f"{owner}.{name}"


def _bound(
    function: Callable[..., Any], args: tuple[Any, ...], options: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """What was given by name, each with its annotation as text."""
    try:
        signature = inspect.signature(function)
        given = signature.bind(*args, **options).arguments
    except (TypeError, ValueError):
        return {str(i): (value, "Any") for i, value in enumerate((*args, *options.values()), 1)}
    found = {}
    for name, value in given.items():
        if name == "self":
            continue
        parameter = signature.parameters[name]
        annotation = (
            name
            if name in _TYPES
            else str(parameter.annotation)
            if parameter.annotation is not parameter.empty
            else "Any"
        )
        if parameter.kind is parameter.VAR_POSITIONAL:
            found.update({f"{name}[{i}]": (each, annotation) for i, each in enumerate(value)})
        elif parameter.kind is parameter.VAR_KEYWORD:
            found.update({key: (each, annotation) for key, each in value.items()})
        else:
            found[name] = (value, annotation)
    return found


_TYPES: dict[str, Callable[[Any], bool]] = {
    "Tensor": lambda x: any(base.__name__ == "Tensor" for base in type(x).__mro__),
    "int": lambda x: isinstance(x, Integral) and not isinstance(x, bool),
    "float": lambda x: isinstance(x, Real),
    "bool": lambda x: isinstance(x, bool) or type(x).__name__ == "bool_",
    "str": lambda x: isinstance(x, str),
    "None": lambda x: x is None,
    "dtype": lambda x: x is None or _is_dtype(x),
}
"""Annotations that can be held against a value; ``dtype`` stands for every argument of that name."""


def _is_dtype(value: Any) -> bool:
    try:
        np.dtype(value)
    except (TypeError, ValueError):
        return False
    return not hasattr(value, "shape")


def _fits(value: Any, annotation: str) -> bool:
    """Whether a value is what an annotation says; True where the annotation names more than these simple types."""
    kinds = [part.strip() for part in annotation.split("|")]
    return any(kind not in _TYPES or _TYPES[kind](value) for kind in kinds)


_ARTICLES = {
    "dtype": "a dtype such as kobai.float32",
    "int": "an integer",
    "float": "a number",
    "bool": "True or False",
    "str": "a string",
    "None": "None",
}


def _article(annotation: str) -> str:
    return " or ".join(_ARTICLES.get(kind.strip(), f"a {kind.strip()}") for kind in annotation.split("|"))


def described(value: Any) -> str:
    """A value in a few words: a tensor by shape and dtype, others as Python writes them.

    >>> described("relu"), described([1, 2])
    ("'relu'", '[1, 2]')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None and not isinstance(value, type):
        return f"{type(value).__name__} of shape {tuple(shape)} and {dtype}"
    text = repr(value)
    if len(text) > 60 or " at 0x" in text:
        return f"a value of type {type(value).__name__}"
    return text
