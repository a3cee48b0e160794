"""How :mod:`kobai.nn.init` reads a name with its numbers, such as ``normal(0.01)``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kobai.core.tensor import Tensor
from kobai.errors import nearest

_SPEC = re.compile(r"\s*([A-Za-z_]\w*)\s*(?:\(([^()]*)\))?\s*")


def read(
    spec: object, known: Mapping[str, tuple[Callable[..., Tensor], str]]
) -> tuple[Callable[..., Tensor], list[float]]:
    """The function that ``spec`` names in the table ``known``, and the numbers in its brackets."""
    if not isinstance(spec, str):
        raise TypeError(f"init: expected a name such as 'he' or 'normal(0.01)', got {type(spec).__name__}")
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ValueError(f"init: expected a name such as 'he' or 'normal(0.01)', got {spec!r}")
    name, arguments = match[1].lower(), (match[2] or "").strip()
    if name not in known:
        raise ValueError(f"init: unknown initialiser {spec!r}.{nearest(name, known)}")
    fill, takes = known[name]
    try:
        numbers = [float(number) for number in arguments.split(",")] if arguments else []
    except ValueError:
        raise ValueError(f"init: {name}({takes}) takes numbers, got {spec!r}") from None
    most = len(takes.split(",")) if takes else 0
    if not (0 if takes.startswith("[") else most) <= len(numbers) <= most:
        raise ValueError(f"init: expected {name}({takes}), got {spec!r}")
    return fill, numbers
