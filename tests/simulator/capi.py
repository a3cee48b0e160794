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
import os
import re
import subprocess
import sysconfig
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

_api = ctypes.pythonapi
_api.PyCapsule_GetName.restype, _api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
_api.PyCapsule_New.restype = ctypes.py_object
_api.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

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
static PyObject* unseen(PyObject* function, PyObject* args, PyObject* named) {  // by profilers, as what is compiled is
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


def stand_in(extension: Path, folder: Path) -> None:
    """Load libraries of the names that a compiled module is linked against, whose functions all fail, so that it can be loaded.

    What it offers itself is replaced afterwards: it is never asked for what it would have called.
    """
    said = subprocess.run(["readelf", "-d", str(extension)], check=True, capture_output=True, text=True).stdout
    needed = [name for name in re.findall(r"NEEDED.*\[(.+?)\]", said) if name.startswith(("libcu", "libnv"))]
    said = subprocess.run(
        ["nm", "-D", "--undefined-only", str(extension)], check=True, capture_output=True, text=True
    ).stdout
    for library in needed:
        names = re.findall(rf"\bU (\w+)@{re.escape(library)}$", said, re.MULTILINE)
        made = folder / library
        if not made.exists():
            folder.mkdir(parents=True, exist_ok=True)
            text, script = folder / f"{library}.cpp", folder / f"{library}.map"
            text.write_text("".join(f'extern "C" int {name}() {{ return 15; }}\n' for name in names))
            script.write_text(f"{library} {{ global: *; }};\n")
            flags = [f"-Wl,-soname,{library}", f"-Wl,--version-script,{script}"]
            subprocess.run(["g++", *FLAGS, *flags, str(text), "-o", str(made)], check=True)
        _kept.append(ctypes.CDLL(str(made), mode=ctypes.RTLD_GLOBAL))
