"""The C functions that one compiled module of CuPy offers to the others, replaced by Python functions.

CuPy's compiled modules find each other's functions in a dictionary, ``__pyx_capi__``: a capsule by name, which holds a pointer
and says the C signature. Modules that are imported later take what lies there by then. So a module whose functions reach for
the device is imported first, and its capsules are replaced by trampolines, compiled here, which call Python::

    cupy.cuda.memory ──► runtime.__pyx_capi__["malloc"] ──► trampoline in C++ ──► runtime.malloc of the simulator, in Python

Nothing of the wheel is changed. The signatures are those that the module itself states, so that a function whose arguments
differ in another release is an error here and not a crash there.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import os
import re
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NewType

_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype, _api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

_STRUCT = "struct bytes_128 { char content[128]; };"

FLAGS = ["-std=c++17", "-O1", "-shared", "-fPIC", "-w"]

BUILD = {
    "int": ("i", "int"),
    "unsigned int": ("I", "unsigned int"),
    "size_t": ("K", "unsigned long long"),
    "uintmax_t": ("K", "unsigned long long"),
    "intptr_t": ("L", "long long"),
    "PY_LONG_LONG": ("L", "long long"),
    "float": ("f", "double"),
    "double": ("d", "double"),
    "PyObject *": ("O", "PyObject*"),
}
"""By C type: how ``Py_BuildValue`` takes it, and as what."""

RESULT = {
    "PyObject *": ("PyObject*", "return made;", "nullptr"),
    "int": ("int", "int v = (int)PyLong_AsLong(made); Py_DECREF(made); return v;", "-1"),
    "unsigned int": (
        "unsigned",
        "unsigned v = (unsigned)PyLong_AsUnsignedLong(made); Py_DECREF(made); return v;",
        "-1",
    ),
    "intptr_t": ("intptr_t", "intptr_t v = PyLong_AsLongLong(made); Py_DECREF(made); return v;", "0"),
    "size_t": ("size_t", "size_t v = PyLong_AsUnsignedLongLong(made); Py_DECREF(made); return v;", "0"),
    "uintmax_t": ("uintmax_t", "uintmax_t v = PyLong_AsUnsignedLongLong(made); Py_DECREF(made); return v;", "0"),
    "float": ("float", "float v = (float)PyFloat_AsDouble(made); Py_DECREF(made); return v;", "-1"),
}

_kept: list[Any] = []


def signatures(module: ModuleType) -> dict[str, str]:
    """By name the C signature of what a module offers, as ``"int (int, int __pyx_skip_dispatch)"``."""
    capsules: Mapping[str, Any] = getattr(module, "__pyx_capi__", {})
    return {name: _api.PyCapsule_GetName(capsule).decode() for name, capsule in capsules.items()}


def replace(module: ModuleType, functions: Mapping[str, Callable[..., Any]], folder: Path) -> None:
    """Let ``functions`` stand for those of their names: for compiled modules that are imported from now on, and for Python."""
    stated = signatures(module)
    known = {
        name: re.sub(r"struct __pyx_obj_\w+ \*", "PyObject *", stated[name]) for name in functions if name in stated
    }
    parts = ["#include <Python.h>", "#include <cstdint>", 'extern "C" {', _UNSEEN]
    parts += [_builtin(name) for name in functions]
    parts += [_trampoline(name, text) for name, text in known.items()]
    library = _compiled("\n".join([*parts, "}"]), folder)
    for name, function in functions.items():
        ctypes.c_void_p.in_dll(library, f"called_{name}").value = id(function)
        made = library[f"made_{name}"]
        made.restype = ctypes.py_object
        setattr(module, name, made())
        _kept.append(function)
    for name in known:
        label = ctypes.create_string_buffer(stated[name].encode())
        _kept.append(label)
        address = ctypes.cast(getattr(library, f"call_{name}"), ctypes.c_void_p)
        module.__pyx_capi__[name] = _api.PyCapsule_New(address, ctypes.cast(label, ctypes.c_char_p), None)


_UNSEEN = """
#if PY_VERSION_HEX < 0x030D0000
#define Py_IsFinalizing _Py_IsFinalizing
#endif
static PyObject* unseen(PyObject* function, PyObject* args, PyObject* named) {  // by profilers, as what is compiled is
    if (Py_IsFinalizing()) return PyLong_FromLong(0);  // handles are given back when the simulator is gone already
    PyThreadState* state = PyThreadState_Get();
    PyThreadState_EnterTracing(state);
    PyObject* made = PyObject_Call(function, args, named);
    PyThreadState_LeaveTracing(state);
    return made;
}
"""


def _builtin(name: str) -> str:
    return (
        f"PyObject* called_{name} = nullptr;\n"
        f"static PyObject* from_python_{name}(PyObject*, PyObject* args, PyObject* named) "
        f"{{ return unseen(called_{name}, args, named); }}\n"
        f"static PyMethodDef method_{name} = "
        f'{{"{name}", (PyCFunction)from_python_{name}, METH_VARARGS | METH_KEYWORDS, nullptr}};\n'
        f"PyObject* made_{name}() {{ return PyCFunction_New(&method_{name}, nullptr); }}\n"
    )


def _trampoline(name: str, text: str) -> str:
    result, arguments = re.fullmatch(r"(.+?) ?\((.*)\)", text).groups()  # type: ignore[union-attr]
    declared, given, formats, optional = [], [], "", False
    for i, argument in enumerate(filter(None, map(str.strip, arguments.split(",")))):
        if argument == "void":
            continue
        if argument == "int __pyx_skip_dispatch":
            declared.append("int")
        elif (
            "__pyx_opt_args" in argument
        ):  # how many are given, and their values: there is no function with more than one
            declared.append("int* optional")
            optional = True
        else:
            ctype = argument if argument in BUILD else "int"  # an enumeration
            declared.append(f"{'PyObject*' if ctype == 'PyObject *' else ctype} a{i}")
            formats += BUILD[ctype][0]
            given.append(f"({BUILD[ctype][1]})a{i}")
    ctype, convert, failed = RESULT[result]
    head = f"{ctype} call_{name}({', '.join(declared)}) {{\n"
    plain = f'PyObject* args = Py_BuildValue("({formats})"{"".join(", " + g for g in given)});'
    if optional:
        more = f'Py_BuildValue("({formats}i)"{"".join(", " + g for g in given)}, optional[1])'
        plain = plain.replace("args = ", f"args = optional && optional[0] ? {more} : ")
    return (
        f"{head}{plain}\nif (!args) return {failed};\nPyObject* made = unseen(called_{name}, args, nullptr);\n"
        f"Py_DECREF(args);\nif (!made) return {failed};\n{convert}\n}}\n"
    )


def _compiled(source: str, folder: Path) -> ctypes.PyDLL:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256((source + sysconfig.get_config_var("SOABI")).encode()).hexdigest()[:24]
    library = folder / f"{name}.so"
    if not library.exists():
        text, made = folder / f"{name}-{os.getpid()}.cpp", folder / f"{name}-{os.getpid()}.so"
        text.write_text(source)
        include = sysconfig.get_paths()["include"]
        subprocess.run(["g++", *FLAGS, "-I", include, str(text), "-o", str(made)], check=True)
        made.replace(library)
        text.unlink()
    return ctypes.PyDLL(str(library))


Pointer = NewType("Pointer", int)
Long = NewType("Long", int)
Struct = NewType("Struct", int)
"""The address of a structure that C passes by value: one of NCCL's 128 bytes, the only one there is."""

_ARGUMENT = {
    "Pointer": ("void*", "K", "(unsigned long long)"),
    "int": ("int", "i", "(int)"),
    "Long": ("long long", "L", "(long long)"),
    "Struct": ("struct bytes_128", "K", "(unsigned long long)&"),
}
"""By the annotation of an argument: its type in C, how ``Py_BuildValue`` takes it, and as what."""


def stand_in(extension: Path, functions: Mapping[str, Callable[..., int]], folder: Path) -> dict[str, int]:
    """Load libraries of the names that a compiled module is linked against; by name, what ``dlopen`` returned.

    The C functions of ``functions`` call Python, arguments as their annotations say; all others return 15, "not supported".
    """

    def said(*command: str) -> str:
        return subprocess.run([*command, str(extension)], check=True, capture_output=True, text=True).stdout

    undefined = said("nm", "-D", "--undefined-only")
    loaded = {}
    for library in sorted(set(re.findall(r"\[(lib(?:cu|nv|nccl)\S+)\]", said("readelf", "--dynamic")))):
        names = re.findall(rf"\bU (\w+)@{re.escape(library)}$", undefined, re.MULTILINE)
        names = names or re.findall(r"\bU (nccl\w+)$", undefined, re.MULTILINE)  # the one library without versions
        if not names:
            continue
        ours = {name: function for name, function in functions.items() if name in names}
        parts = ["#include <Python.h>", 'extern "C" {', _UNSEEN, _STRUCT]
        parts += [_c_function(name, function) for name, function in ours.items()]
        parts += [f"int {name}() {{ return 15; }}" for name in names if name not in ours]
        made = _shared_library("\n".join([*parts, "}"]), library, folder)
        for name, function in ours.items():
            ctypes.c_void_p.in_dll(made, f"called_{name}").value = id(function)
        _kept.append((made, ours))
        loaded[library] = made._handle
    return loaded


def _c_function(name: str, function: Callable[..., int]) -> str:
    types = [_ARGUMENT[p.annotation] for p in inspect.signature(function).parameters.values()]
    declared = ", ".join(f"{ctype} a{i}" for i, (ctype, _, _) in enumerate(types))
    given = "".join(f", {cast}a{i}" for i, (_, _, cast) in enumerate(types))
    return f"""
PyObject* called_{name} = nullptr;
size_t {name}({declared}) {{  // callers take as much of it as they know of
    if (!Py_IsInitialized()) return 0;
    PyGILState_STATE state = PyGILState_Ensure();
    PyObject* args = Py_BuildValue("({"".join(letter for _, letter, _ in types)})"{given});
    PyObject* made = args ? unseen(called_{name}, args, nullptr) : nullptr;
    const size_t status = made ? PyLong_AsSize_t(made) : 14;
    if (!made) PyErr_WriteUnraisable(called_{name});
    Py_XDECREF(args);
    Py_XDECREF(made);
    PyGILState_Release(state);
    return status;
}}"""


def interpose(extension: Path, functions: Mapping[str, Callable[..., int]], folder: Path) -> None:
    """Functions that a compiled module has in itself call Python instead: it is loaded after this, and finds these first.

    ``functions``: by the names that the linker knows.
    """
    binary = extension.read_bytes()
    if missing := [name for name in functions if name.encode() + b"\0" not in binary]:
        raise ImportError(f"{extension.name} has no {', '.join(missing)}")
    parts = ["#include <Python.h>", 'extern "C" {', _UNSEEN]
    parts += [_c_function(name, function) for name, function in functions.items()]
    made = _shared_library("\n".join([*parts, "}"]), f"libinterposed_{extension.name.partition('.')[0]}.so", folder)
    for name, function in functions.items():
        ctypes.c_void_p.in_dll(made, f"called_{name}").value = id(function)
    _kept.append((made, functions))


def _shared_library(source: str, name: str, folder: Path) -> ctypes.CDLL:
    """A library under the name and symbol version that others look for it by."""
    where = folder / hashlib.sha256((source + name + sysconfig.get_config_var("SOABI")).encode()).hexdigest()[:24]
    library = where / name
    if not library.exists():
        where.mkdir(parents=True, exist_ok=True)
        text, script, made = (where / f"{os.getpid()}{suffix}" for suffix in (".cpp", ".map", ".so"))
        text.write_text(source)
        script.write_text(f"{name} {{ global: *; }};\n")
        flags = ["-I", sysconfig.get_paths()["include"], f"-Wl,-soname,{name}", f"-Wl,--version-script,{script}"]
        subprocess.run(["g++", *FLAGS, *flags, str(text), "-o", str(made)], check=True)
        made.replace(library)
        text.unlink()
        script.unlink()
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
