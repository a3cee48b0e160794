"""Compiled code on disk, loaded only if it is undamaged and lies in a folder that only this user can write to.

Numba loads its own files from wherever they lie, unchecked. They are replaced by files that begin with the SHA-256 of their
content; a damaged one is deleted and compiled again.
"""

from __future__ import annotations

import errno
import gc
import importlib
import inspect
import logging
import os
import pickle
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from kobai.engine import turns

log = logging.getLogger("kobai")

DIGEST = 32  # bytes of SHA-256


def sha256(content: bytes) -> bytes:
    import hashlib  # takes milliseconds

    return hashlib.sha256(content).digest()


def cache_folder() -> Path:
    """Where generated loops and machine code are kept: ``KOBAI_CACHE``, else the user's cache folder.

    OSError if the user has no home.
    """
    named = os.environ.get("KOBAI_CACHE")
    if sys.platform == "darwin":
        base = "~/Library/Caches"
    elif os.name == "nt":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    try:
        return (Path(named).expanduser() if named else Path(base).expanduser() / "kobai") / "kernels"
    except RuntimeError:
        raise FileNotFoundError(errno.ENOENT, "there is no home folder", named or base) from None


def claim(folder: Path) -> None:
    """Make a folder if it is not there; OSError unless it is this user's, and nobody else can write to it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user", str(folder))
    if os.name != "nt" and status.st_mode & 0o022:
        raise PermissionError(errno.EPERM, "others can write to it; chmod go-w would make it safe", str(folder))
    import tempfile

    tempfile.TemporaryFile(dir=folder).close()


@cache
def _refused(folder: Path) -> OSError | None:
    """Why a folder is not used: looked at once in a process."""
    try:
        claim(folder)
    except OSError as error:
        return error
    return None


unkept: list[str] = []
"""Why compiled code is not kept, logged once."""


def in_memory(error: OSError) -> None:
    """Log, once, that nothing is kept."""
    if not unkept:
        unkept.append(str(error))
        where, why = error.filename or "their folder", error.strerror or error
        log.warning("kernels: %s cannot be used (%s), so they are compiled anew in every process", where, why)


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in its place at once: another process may read it already."""
    import tempfile

    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def source_file(name: str, source: str) -> str:
    """The file of a generated source, written if it is not there; without a folder for it, a name that is no file's.

    The file is never run, only compared: Numba looks for machine code by the file of its source.
    """
    try:
        folder = cache_folder()
        path = folder / f"{name}.py"
        if (reason := _refused(folder)) is not None:
            in_memory(reason)
            return f"<{name}>"
        content = source.encode()
        if path.exists() and path.read_bytes() != content:
            log.warning("kernels: %s is damaged; it is written and compiled again", path)
            path.unlink()
        if not path.exists():
            write_whole(path, content)
    except OSError as error:
        in_memory(error)
        return f"<{name}>"
    return str(path)


def machine_code_folder(file: str) -> Path | None:
    """Where the machine code of a source file is kept: ``NUMBA_CACHE_DIR``, beside it, or :func:`cache_folder`."""
    if not os.path.exists(file):
        return None
    named = os.environ.get("NUMBA_CACHE_DIR")
    source = Path(os.path.abspath(file))
    apart = f"{source.parent.name}_{sha256(str(source.parent).encode()).hex()[:16]}"
    folders = [*([Path(named) / apart] if named else []), source.parent / "__pycache__"]
    with suppress(OSError):
        folders.append(cache_folder() / apart)
    for folder in folders:
        if _refused(folder) is None:
            return folder
    reason = _refused(folders[-1])
    assert reason is not None
    in_memory(reason)
    return None


@cache
def digest_of(file: str) -> bytes:
    """Of a source file; of its name if there is none."""
    try:
        return sha256(Path(file).read_bytes())
    except OSError:
        return sha256(file.encode())


class _Place:
    """What Numba asks about where a function is kept."""

    def __init__(self, function: Any, folder: Path) -> None:
        self._folder = folder
        self._line = function.__code__.co_firstlineno

    def ensure_cache_path(self) -> None:
        claim(self._folder)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> bytes:
        return b""  # of one file alone; what is linked counts too

    def get_disambiguator(self) -> str:
        return str(self._line)


@cache
def _files_class() -> Any:
    """Numba's files of one function, with checksums; Numba is imported when it is needed."""
    caching = importlib.import_module("numba.core.caching")

    class Files(caching.IndexDataCacheFile):  # type: ignore[misc, name-defined]
        def _load_index(self) -> dict[Any, str]:
            try:
                version, rest = pickle.loads(self._read(self._index_path))
            except OSError:
                return {}
            if version != self._version:
                return {}  # its types may have other attributes
            stamp, overloads = pickle.loads(rest)
            return overloads if stamp == self._source_stamp else {}

        def _save_index(self, overloads: dict[Any, str]) -> None:
            self._write(self._index_path, (self._version, self._dump((self._source_stamp, overloads))))

        def _load_data(self, name: str) -> Any:
            return pickle.loads(self._read(self._data_path(name)))

        def _save_data(self, name: str, data: Any) -> None:
            self._write(self._data_path(name), data)

        def _read(self, path: str) -> bytes:
            content = Path(path).read_bytes()
            if sha256(content[DIGEST:]) != content[:DIGEST]:
                log.warning("kernels: %s is damaged; it is compiled again", path)
                os.unlink(path)
                raise FileNotFoundError(errno.ENOENT, "damaged", path)
            return content[DIGEST:]

        def _write(self, path: str, what: Any) -> None:
            content = self._dump(what)
            write_whole(Path(path), sha256(content) + content)

    return Files


@cache
def _cache_class() -> Any:
    """Numba's cache of one function, over such files."""
    caching = importlib.import_module("numba.core.caching")

    class Code(caching.CompileResultCacheImpl):  # type: ignore[misc, name-defined]
        def __init__(self, function: Any) -> None:
            file = inspect.getfile(function)
            folder = machine_code_folder(file)
            if folder is None:
                raise FileNotFoundError(errno.ENOENT, "no folder for machine code", file)
            self._lineno = function.__code__.co_firstlineno
            self._locator = _Place(function, folder)
            name = f"{Path(file).stem}.{function.__qualname__}"
            self._filename_base = f"{self.get_filename_base(name, getattr(sys, 'abiflags', ''))}.own.sha256"

    class Cache(caching.FunctionCache):  # type: ignore[misc, name-defined]
        _impl_class = Code

        def __init__(self, function: Any, stamp: bytes) -> None:
            super().__init__(function)
            self._cache_file = _files_class()(self._cache_path, self._impl.filename_base, stamp)
            self._turns: list[turns.Turn] = []

        def load_overload(self, signature: Any, target: Any) -> Any:
            """What is on disk; or None, and until :meth:`end` no other process compiles it."""
            if (found := self._load(signature, target)) is not None:
                return found
            turn = turns.take(Path(self._cache_path), f"{self._impl.filename_base} {signature}")
            if turn is None:
                return None
            self._turns.append(turn)
            found = self._load(signature, target)  # another process may have written it meanwhile
            if found is not None:
                self.end()
            return found

        def _load(self, signature: Any, target: Any) -> Any:
            try:
                return super().load_overload(signature, target)
            except Exception as error:  # unpickling what another version wrote may raise anything
                log.warning("kernels: %s cannot be loaded (%r); it is compiled again", self._impl.filename_base, error)
                return None

        def save_overload(self, signature: Any, result: Any) -> None:
            try:
                super().save_overload(signature, result)
            except OSError as error:
                in_memory(error)
            finally:
                self.end()

        def end(self) -> None:
            """It is compiled, or cannot be."""
            if self._turns:
                turns.give_back(self._turns.pop())

    return Cache


def _keep(made: Any, function: Any, stamp: bytes, options: dict[str, Any]) -> None:
    how = sorted((name, sorted(value) if isinstance(value, set) else value) for name, value in options.items())
    try:
        made._cache = kept = _cache_class()(function, sha256(stamp + repr(how).encode()))
    except FileNotFoundError:  # no folder: the log says so already
        return
    compile = made._compiler.compile

    def compiled(*types: Any) -> Any:
        collects = gc.isenabled()
        gc.disable()  # a compiler makes objects that all stay for a while: looking for garbage among them takes 6 % of its time
        try:
            return compile(*types)
        except BaseException:
            kept.end()
            raise
        finally:
            if collects:
                gc.enable()

    made._compiler.compile = compiled


def loop(function: Any, stamp: bytes, signatures: list[Any] | None, options: dict[str, Any]) -> Any:
    """``numba.njit`` of a function, with its machine code kept on disk for as long as ``stamp`` is the same."""
    from kobai.engine import own_code

    numba = importlib.import_module("numba")
    made = numba.njit(**options, pipeline_class=own_code.pipeline())(function)
    if made is function:  # NUMBA_DISABLE_JIT
        return made
    _keep(made, function, stamp, options)
    if signatures is not None:
        with importlib.import_module("numba.core.typeinfer").register_dispatcher(made):
            for signature in signatures:
                made.compile(signature)
            made.disable_compile()
    return made


def callback(function: Callable[..., None], stamp: bytes, signature: Any, options: dict[str, Any]) -> Any:
    """``numba.cfunc`` of a function, with its machine code kept on disk for as long as ``stamp`` is the same."""
    from kobai.engine import own_code

    normal = importlib.import_module("numba.core.sigutils").normalize_signature(signature)
    made = importlib.import_module("numba.core.ccallback").CFunc(
        function, normal, locals={}, options=options, pipeline_class=own_code.pipeline()
    )
    _keep(made, function, stamp, options)
    made.compile()
    return made
