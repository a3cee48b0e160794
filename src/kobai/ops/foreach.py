"""Operations on lists of tensors, which optimisers outside of Kobai are written with: ``_foreach_add_(params, grads)``.

``_foreach_NAME`` calls the method ``NAME`` of every tensor of a list, with the elements of the other lists beside it. In
PyTorch they save launches on a GPU; here they are a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kobai.core.tensor import Tensor

__all__: list[str] = []

_ONE = """abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 neg reciprocal round rsqrt
    sigmoid sign sin sinh sqrt tan tanh trunc"""
_MORE = "add addcdiv addcmul clamp_max clamp_min div lerp maximum minimum mul pow sub"
NAMES = frozenset(
    f"_foreach_{name}"
    for name in (
        *("clone", "copy_", "max", "mm", "norm", "zero_"),
        *(form for name in f"{_ONE} {_MORE}".split() for form in (name, f"{name}_")),
    )
)
_OF_NUMBERS = {"maximum": "clamp_min", "minimum": "clamp_max"}
"""What the same is called where the other operand is a number."""
_SPELT = {"ord": "p"}
"""Arguments that the lists' form spells otherwise than the method."""
_THIRD = {"add": ("alpha", 2), "sub": ("alpha", 2), "addcdiv": ("value", 3), "addcmul": ("value", 3)}
"""An argument that the lists' form takes by position and the method by keyword, and where it stands."""


def _apply(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    who, plain = f"_foreach_{name}", name.rstrip("_")
    keyword, place = _THIRD.get(plain, ("", len(args)))
    given = dict(zip(range(place), args, strict=False))
    rest = {**kwargs, **({keyword: args[place]} if len(args) > place else {})}
    if isinstance(scalars := rest.get("scalars", rest.get(keyword)), Tensor):  # one number for each, in one tensor
        rest.pop("scalars", None)
        rest[keyword] = scalars.tolist()
    lengths = {len(given) for given in (*given.values(), *rest.values()) if isinstance(given, (list, tuple))}
    if len(lengths) != 1 or 0 in lengths:
        raise RuntimeError(
            f"{who}: expected lists of one length, of one tensor at least, got lengths {sorted(lengths)}"
        )

    def at(value: Any, i: int) -> Any:
        return value[i] if isinstance(value, (list, tuple)) else value

    results = []
    for i in range(lengths.pop()):
        first, *others = (at(value, i) for value in given.values())
        options = {_SPELT.get(key, key): at(value, i) for key, value in rest.items()}
        method = name
        if others and not isinstance(others[0], Tensor) and plain in _OF_NUMBERS:
            method = _OF_NUMBERS[plain] + name[len(plain) :]
        if isinstance(first, Tensor) and hasattr(first, method):
            results.append(getattr(first, method)(*others, **options))
        elif isinstance(first, Tensor):  # maximum_ is a list's form alone
            results.append(first.copy_(getattr(first, plain)(*others, **options)))
        else:  # a number to the powers in a list
            results.append(first ** others[0])
    return results


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    operation = name.removeprefix("_foreach_")

    def foreach(*args: Any, **kwargs: Any) -> Any:
        results = _apply(operation, args, kwargs)
        return args[0] if operation.endswith("_") else tuple(results)

    foreach.__name__ = foreach.__qualname__ = name
    foreach.__doc__ = (
        f"``{operation}`` of every tensor of a list; the other arguments may be lists as well, one for each."
    )
    globals()[name] = foreach
    return foreach
