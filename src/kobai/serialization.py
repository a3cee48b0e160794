"""``save`` and ``load``: nested Python data with tensors in one safetensors file, written atomically. No pickle.

Arrays are the file's tensors, named by their path (``model.fc1.weight``); the structure around them, if any, is JSON in
the file's metadata. A flat dict of tensors – a ``state_dict`` – is thus an ordinary safetensors file, which PyTorch reads,
and the ordinary safetensors files that PyTorch writes are read here. The metadata also hold a checksum of the whole file; a
damaged file is refused.

Format: https://github.com/huggingface/safetensors (an 8-byte length, a JSON header, the bytes of the arrays).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from kobai.core.checksum import BLANK, KEY as CHECKSUM, DamagedError, intact, sealed
from kobai.core.files import write_atomically
from kobai.core.tensor import Tensor
from kobai.core.untrusted import from_json, regular
from kobai.dtypes import bfloat16, is_number
from kobai.errors import CheckpointError
from kobai.xp import Array, asarray, device, is_array, to_host

KEY = "kobai"
"""Metadata entry that holds the structure."""
VERSION = 1
DEFAULT_PROTOCOL = 2
"""Of the pickles that PyTorch writes, for programs that name it; Kobai writes none."""
RESERVED = "__metadata__"
"""The one name that the format reserves."""


def _encode(obj: Any, path: str, arrays: dict[str, np.ndarray[Any, Any]]) -> Any:
    """``obj`` as JSON. What JSON lacks becomes a one-key object: tensor, array, tuple, dict with other keys, inf, nan."""
    if isinstance(obj, (Tensor, np.generic)) or is_array(obj):
        name = path
        while name in arrays or name in ("", RESERVED):
            name += "_"
        kind = "tensor" if isinstance(obj, Tensor) else "scalar" if isinstance(obj, np.generic) else "array"
        if not is_number(np.dtype(obj.dtype)):
            raise TypeError(f"save: expected bool, integer or float elements, got {obj.dtype} at {path or 'the top'}")
        arrays[name] = to_host(
            obj.detach().array if isinstance(obj, Tensor) else np.asarray(obj) if isinstance(obj, np.generic) else obj
        )
        return {f"${kind}": name}
    if obj is None or isinstance(obj, (bool, str)):
        return obj
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        return float(obj) if np.isfinite(obj) else {"$float": repr(float(obj))}
    if isinstance(obj, (list, tuple)):
        items = [_encode(item, f"{path}.{i}" if path else str(i), arrays) for i, item in enumerate(obj)]
        return {"$tuple": items} if isinstance(obj, tuple) else items
    if isinstance(obj, dict):
        plain = all(isinstance(k, str) and not k.startswith("$") for k in obj)
        pairs = [(k, _encode(v, f"{path}.{k}" if path else str(k), arrays)) for k, v in obj.items()]
        for k in obj:
            if not isinstance(k, (str, int, float, bool)) and k is not None:
                raise TypeError(
                    f"save: expected dict keys to be strings or numbers, got {type(k).__name__} at {path or 'top'}"
                )
        return dict(pairs) if plain else {"$dict": [[k, v] for k, v in pairs]}
    raise TypeError(
        f"save: expected tensors, arrays, numbers, strings, None, lists, tuples and dicts, got {type(obj).__name__} at "
        f"{path or 'the top'}. Save a model as model.state_dict(): no code is kept in the file"
    )


def _decode(obj: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(obj, list):
        return [_decode(item, arrays) for item in obj]
    if not isinstance(obj, dict):
        return obj
    if len(obj) == 1:
        ((kind, value),) = obj.items()
        if kind == "$tensor":
            return Tensor._wrap(arrays[value])
        if kind == "$array":
            return arrays[value]
        if kind == "$scalar":
            return arrays[value][()]
        if kind == "$tuple":
            return tuple(_decode(item, arrays) for item in value)
        if kind == "$dict":
            return {k: _decode(v, arrays) for k, v in value}
        if kind == "$float":
            return float(value)
    return {k: _decode(v, arrays) for k, v in obj.items()}


def _is_flat(obj: Any) -> bool:
    """Whether ``obj`` is a ``state_dict``, which needs no structure beside its names."""
    return isinstance(obj, dict) and all(
        isinstance(k, str) and k != RESERVED and isinstance(v, Tensor) for k, v in obj.items()
    )


def _parts(obj: Any) -> list[bytes]:
    """``obj`` as a safetensors file: length and header, and the bytes of all arrays."""
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    metadata = {"format": "pt", CHECKSUM: BLANK}
    if _is_flat(obj):
        arrays = {name: to_host(t.detach().array) for name, t in obj.items()}
    else:
        structure = {"version": VERSION, "data": _encode(obj, "", arrays)}
        metadata[KEY] = json.dumps(structure, allow_nan=False)
    header: dict[str, Any] = {RESERVED: metadata}
    data: list[memoryview] = []
    end = 0
    # Widest elements first, so that every array is aligned.
    for name, array in sorted(arrays.items(), key=lambda entry: (-entry[1].itemsize, entry[0])):
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        begin, end = end, end + little.nbytes
        kind = little.dtype.kind + str(little.itemsize)
        header[name] = {"dtype": _NAMES[kind], "shape": list(little.shape), "data_offsets": [begin, end]}
        data.append(little.reshape(-1).view(np.uint8).data)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    body = b"".join(data)  # a copy, so that the checksum holds even if another thread goes on training
    return [sealed(len(text).to_bytes(8, "little") + text, body), body]


def save(
    obj: Any,
    f: str | os.PathLike[str] | BinaryIO,
    pickle_module: Any = None,
    pickle_protocol: int | None = None,
    _use_new_zipfile_serialization: bool = True,
) -> None:
    """Save a ``state_dict``, or any nesting of dicts, lists, tuples, numbers, strings, tensors and arrays.

    The file is in safetensors format and replaces an older one atomically; ``f`` may also be a binary file object. What
    PyTorch's arguments say of pickles makes no difference to it.

    Errors: TypeError naming the place of an object that cannot be saved (a whole model, say).

    >>> import io, kobai
    >>> file = io.BytesIO()
    >>> kobai.save({"epoch": 3, "model": {"w": kobai.ones(2)}}, file)
    >>> _ = file.seek(0); kobai.load(file)
    {'epoch': 3, 'model': {'w': tensor([1., 1.])}}
    """
    if isinstance(f, (str, os.PathLike)):
        if not Path(f).parent.is_dir():
            raise FileNotFoundError(f"save: the folder {Path(f).parent} does not exist")
        write_atomically(f, _parts(obj))
    elif hasattr(f, "write"):
        f.write(b"".join(_parts(obj)))
    else:
        raise TypeError(f"save: expected a path or a binary file object, got {type(f).__name__}")


Places = str | device | Mapping[str, str] | Callable[[Tensor, str], Tensor | None] | None
"""Where to put what is loaded. The files say nothing of devices: a mapping, and a function, are asked about ``"cpu"``."""
MAP_LOCATION = Places  # PyTorch's name
FileLike = FILE_LIKE = str | os.PathLike[str] | BinaryIO


def load(
    f: str | os.PathLike[str] | BinaryIO,
    map_location: Places = None,
    pickle_module: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool | None = None,
) -> Any:
    """What :func:`save` saved, or the tensors of any safetensors file, on the CPU or on ``map_location``.

    ``map_location`` is a device, or PyTorch's ``{"cuda:0": "cpu"}`` or ``lambda tensor, location: tensor``. No file of this
    format holds code, so ``weights_only`` and ``pickle_module`` make no difference, nor does ``mmap``: files are read whole.

    Errors: FileNotFoundError; :class:`~kobai.errors.CheckpointError` for a truncated or damaged file or one of another format.

    >>> import io, kobai
    >>> file = io.BytesIO()
    >>> kobai.save([kobai.ones(2), "text"], file)
    >>> _ = file.seek(0); kobai.load(file)
    [tensor([1., 1.]), 'text']
    """
    if isinstance(f, (str, os.PathLike)):
        if os.path.isdir(f):
            raise CheckpointError(f"load: {os.fspath(f)} is a folder, expected a file")
        name, content = os.fspath(f), regular(f).read_bytes()
    else:
        name, content = getattr(f, "name", "the stream"), f.read()
    arrays, metadata = _unpack(str(name), content)
    place = _place(map_location)
    placed: dict[str, Array] = {key: place(a) for key, a in arrays.items()}
    if KEY not in metadata:
        return {key: Tensor._wrap(a) for key, a in placed.items()}
    try:
        structure = from_json(metadata[KEY])
        if structure["version"] > VERSION:
            raise CheckpointError(f"load: {name} was written by a newer Kobai (format {structure['version']})")
        return _decode(structure["data"], placed)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"load: the structure stored in {name} is damaged ({error!r})") from error


def _place(map_location: Places) -> Callable[[Any], Array]:
    """The function that puts an array of a file where ``map_location`` says."""
    if callable(map_location) and not isinstance(map_location, (str, device)):
        chosen = map_location

        def put(array: Any) -> Array:
            tensor = Tensor._wrap(asarray(array, device=device("cpu")))
            moved = chosen(tensor, "cpu")
            return tensor.array if moved is None else moved.array

        return put
    if isinstance(map_location, Mapping):
        map_location = map_location.get("cpu", "cpu")
    where = device("cpu") if map_location is None else device(map_location)
    return lambda array: asarray(array, device=where)


_DTYPES: dict[str, Any] = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "BF16": bfloat16.dtype, "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_NAMES = {np.dtype(spelt).kind + str(np.dtype(spelt).itemsize): name for name, spelt in _DTYPES.items()}


def _unpack(name: str, content: bytes) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    from safetensors import SafetensorError, deserialize

    size = int.from_bytes(content[:8], "little")
    try:
        entries = deserialize(content)  # type: ignore[no-untyped-call]
        metadata = from_json(content[8 : 8 + size]).get(RESERVED) or {}
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"load: {name} ({len(content)} bytes) {_what_is(content)} ({error})") from error
    if not intact(content, 8 + size):
        raise CheckpointError(f"load: {name} {DamagedError()}")
    return {key: _array(f"{key!r} in {name}", entry) for key, entry in entries}, metadata


def _array(what: str, entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    """One entry of the file as a writable array."""
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(f"load: {what} has elements of {entry['dtype']}, a type that Kobai does not know")
    return np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"]).copy()


def _what_is(content: bytes) -> str:
    """What a file is that is not safetensors. (A safetensors header of 640 bytes begins like a pickle.)"""
    if content[8:9] != b"{" and (content[:2] == b"PK" or b"\x80\x02" <= content[:2] <= b"\x80\x05"):
        return (
            "is a pickled file such as torch.save writes, which could run any code; "
            "convert it with safetensors.torch.save_file(torch.load(...), path)"
        )
    return "is not a whole safetensors file: it is truncated or of another format"


def safe_globals(safe_globals: Iterable[Any]) -> AbstractContextManager[None]:
    """A block in which PyTorch unpickles these classes. Kobai's files name no classes, so there is nothing to allow.

    >>> import kobai
    >>> with kobai.serialization.safe_globals([dict]):
    ...     pass
    """
    add_safe_globals(safe_globals)
    return nullcontext()


def add_safe_globals(safe_globals: Iterable[Any]) -> None:
    """:func:`safe_globals` from now on.

    >>> import kobai
    >>> kobai.serialization.add_safe_globals([dict])
    """
    for one in safe_globals:
        if not (callable(one) or isinstance(one, tuple)):
            raise TypeError(f"add_safe_globals: expected classes and functions, got {type(one).__name__}")
