"""Whether two results are the same, and of what kind a refusal is."""

from __future__ import annotations

import linecache
import os
import re
import traceback
from collections import Counter
from typing import Any

import numpy as np
import torch

import kobai

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
SOURCE = os.path.dirname(kobai.__file__)


class Findings(dict[str, str]):
    """What differs of one operation: "form: kind" to the first sample that shows it."""

    lacks_out = False

    def __init__(self) -> None:
        super().__init__()
        self.noted = 0
        self.tried: Counter[str] = Counter()  # samples of each form
        self.agreed: Counter[str] = Counter()

    def note(self, form: str, kind: str, message: str) -> None:
        self.noted += 1
        self.setdefault(f"{form}: {kind}", message)


def leaves(value: Any) -> list[Any]:
    """The results in ``value``, in order."""
    if isinstance(value, (tuple, list)) and not isinstance(value, (torch.Size, kobai.Size)):
        return [leaf for part in value for leaf in leaves(part)]
    if isinstance(value, dict):
        return [leaf for part in value.values() for leaf in leaves(part)]
    return [value]


def outline(value: Any) -> Any:
    """How results are nested, and which are tensors, numbers, or shapes."""
    if isinstance(value, (torch.Size, kobai.Size)):
        return "shape"
    if isinstance(value, (tuple, list)):
        return [outline(part) for part in value]
    return "tensor" if isinstance(value, (torch.Tensor, kobai.Tensor)) else type(value).__name__


def dtype_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.").removeprefix("kobai.")


def host(tensor: Any) -> np.ndarray[Any, Any]:
    """Its values; bfloat16 as float32, which has them all, as PyTorch gives no array of it."""
    tensor = tensor.detach()
    return (tensor.float() if dtype_name(tensor.dtype) == "bfloat16" else tensor).numpy(force=True)


def difference(theirs: np.ndarray, ours: np.ndarray, tolerance: float) -> str:
    """Where two arrays differ by more than ``tolerance`` of the element or of the largest element; "" if nowhere."""
    if theirs.dtype.kind != "f":
        same = theirs == ours
    else:
        a, b = theirs.astype(np.float64), ours.astype(np.float64)
        largest = np.abs(a[np.isfinite(a)]).max(initial=1e-3)
        with np.errstate(invalid="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= tolerance * (largest + np.abs(a)))
            same &= np.isfinite(a) == np.isfinite(b)
    if same.all():
        return ""
    at = tuple(int(i) for i in np.argwhere(~same)[0])
    return (
        f"{int((~same).sum())} of {same.size} differ: at {at} PyTorch {theirs[at].item()!r}, Kobai {ours[at].item()!r}"
    )


def compare(theirs: Any, ours: Any, tolerance: float, values: bool = True) -> tuple[str, str]:
    """("shape" | "dtype" | "value", what differs), or two empty strings."""
    if outline(theirs) != outline(ours):
        return "shape", f"PyTorch gives {outline(theirs)}, Kobai {outline(ours)}"
    for i, (t, k) in enumerate(zip(leaves(theirs), leaves(ours), strict=True)):
        if isinstance(t, torch.Tensor):
            if tuple(t.shape) != tuple(k.shape):
                return "shape", f"result {i}: PyTorch {tuple(t.shape)}, Kobai {tuple(k.shape)}"
            if dtype_name(t.dtype) != dtype_name(k.dtype):
                return "dtype", f"result {i}: PyTorch {dtype_name(t.dtype)}, Kobai {dtype_name(k.dtype)}"
            what = difference(host(t), host(k), tolerance) if values else ""
        elif isinstance(t, (bool, int, float)) and values:
            what = difference(np.asarray(t), np.asarray(k), tolerance)
        else:
            what = f"PyTorch {t}, Kobai {k}" if isinstance(t, torch.Size) and tuple(t) != tuple(k) else ""
        if what:
            return "value", f"result {i}: {what}"
    return "", ""


def is_rounding(theirs: np.ndarray, ours: np.ndarray, exact: np.ndarray) -> bool:
    """Whether Kobai is about as near to the result in float64 as PyTorch, in the same dtype, is itself."""
    fine = np.isfinite(exact) & np.isfinite(theirs)
    if difference(theirs[~fine], ours[~fine], 0.0) or not np.isfinite(ours[fine]).all():
        return False
    noise = 10 * np.finfo(theirs.dtype).eps * np.abs(exact[fine]).max(initial=0.0)
    far, near = (np.abs(x[fine].astype(np.float64) - exact[fine]).max(initial=0.0) for x in (ours, theirs))
    return bool(far <= 10 * near + noise)


def said(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:240]


def is_explained(error: BaseException) -> bool:
    """Whether a ``raise`` of Kobai's says it, rather than Python or NumPy below."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    if not last.filename.startswith(SOURCE) or isinstance(error, RecursionError):
        return False
    lines = [linecache.getline(last.filename, n).strip() for n in range(last.lineno or 0, (last.lineno or 0) - 8, -1)]
    return any(line.startswith("raise ") for line in lines)


def refusal(error: BaseException) -> str:
    """The kind of a refusal that PyTorch does not make."""
    if isinstance(error, TypeError):
        if found := re.search(r"\(\) got an unexpected keyword argument '(\w+)'", str(error)):
            return f"no argument {found[1]}"
        if re.search(r"\(\) (takes|missing|got)", str(error)):
            return "no such arguments"
    if isinstance(error, NotImplementedError):
        return "not implemented"
    return "refused" if is_explained(error) else "obscure error"


def of_refusals(theirs: BaseException, ours: BaseException) -> str:
    """The kind of difference between two refusals of the same thing; "" if there is none."""
    if not is_explained(ours) and not re.search(r"\(\) (got|takes|missing)", str(ours)):
        return "obscure error"
    return "" if isinstance(ours, type(theirs)) or isinstance(theirs, type(ours)) else "another exception"
