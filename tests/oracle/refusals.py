"""Wrong arguments of OpInfo that PyTorch refuses: Kobai has to refuse them too."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch

from oracle import bridge, verdict
from oracle.bridge import ForeignError, LackingError, put

NO_OUT = "no argument out"  # is listed as lacking, not as a difference


class Shown(str):
    __repr__ = str.__str__


def shown(given: Any) -> str:
    def leaf(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return Shown(f"{verdict.dtype_name(part.dtype)}{tuple(part.shape)}")
        return part

    return re.sub(r"\s+", " ", repr(bridge.rebuild(given, leaf)))[:240]


# --- what must be refused ---------------------------------------------------------------------------------------------


def refusals(info: Any, kobais: Any) -> Iterator[tuple[str, str]]:
    """Calls that PyTorch's tests say must raise: those that Kobai takes, or refuses with another type or no reason."""
    if info.error_inputs_func is None:
        return
    for bad in itertools.islice(info.error_inputs("cpu"), 60):
        sample = bad.sample_input
        given = ((sample.input, *sample.args), dict(sample.kwargs))

        def theirs(given: Any = given) -> None:
            info.op(*given[0], **given[1])

        def ours(given: Any = given) -> None:
            kobais(*put(given[0]), **put(given[1]))

        if found := both_refuse(theirs, ours):
            yield found[0], f"{found[1]}\n    {shown(given)}"


def both_refuse(theirs: Callable[[], Any], ours: Callable[[], Any]) -> tuple[str, str] | None:
    try:
        theirs()
    except Exception as error:
        expected = error
    else:  # refused on other devices only
        return None
    try:
        ours()
    except (ForeignError, LackingError):
        return None
    except Exception as error:
        if verdict.refusal(error) == NO_OUT:
            return None
        kind = verdict.of_refusals(expected, error)
        return (kind, f"{verdict.said(error)}; PyTorch says {verdict.said(expected)}") if kind else None
    return "accepted", f"PyTorch says {verdict.said(expected)}"
