"""The tree under every module: its parameters, buffers and children by name, ways to walk it, and its repr."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, cast

from kobai.core.tensor import Tensor
from kobai.errors import MissingAttribute, nearest
from kobai.nn.parameter import Buffer, Parameter

Module = Any
"""``kobai.nn.Module``, which is made of the class below."""


# What a module keeps apart from its other attributes: what to call it, its type, and a hint for who assigns another.
_TABLES = {
    "_parameters": ("parameter", "kobai.nn.Parameter", "; to change its values, write into it under kobai.no_grad()"),
    "_modules": ("child module", "kobai.nn.Module", ""),
    "_buffers": ("buffer", "kobai.Tensor", ""),
}


class Tree:
    """The part of :class:`Module` that holds named parameters, buffers and child modules."""

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _non_persistent_buffers_set: set[str]
    _repr_names: ClassVar[tuple[str, ...]] = ()  # the attributes that extra_repr shows

    def __init__(self) -> None:
        # Straight into __dict__: __setattr__ below relies on these tables.
        self.__dict__.update(_parameters={}, _buffers={}, _non_persistent_buffers_set=set(), _modules={})

    # -- attributes ---------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        # Reached only when the ordinary look-up has failed.
        state = self.__dict__
        try:
            if name in state["_parameters"]:
                return state["_parameters"][name]
            if name in state["_modules"]:
                return state["_modules"][name]
            if name in state["_buffers"]:
                return state["_buffers"][name]
        except KeyError:
            if not name.startswith("_"):
                raise AttributeError(no_init(self, f"read {name!r}"), name=name) from None
        raise MissingAttribute(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        state = self.__dict__
        if isinstance(value, Parameter):
            self._forget(name, "parameter", "_buffers", "_modules")
            self.register_parameter(name, value)
        elif isinstance(value, Tree):
            self._forget(name, "module", "_parameters", "_buffers")
            state["_modules"][name] = value
        elif isinstance(value, Buffer) and not any(name in state.get(t, ()) for t in ("_parameters", "_modules")):
            self._forget(name, "buffer")
            self.register_buffer(name, value, value.persistent)
        else:
            for table, (kind, wanted, hint) in _TABLES.items():
                if name in state.get(table, ()):
                    if value is not None and not (table == "_buffers" and isinstance(value, Tensor)):
                        raise TypeError(
                            f"cannot assign {type_name(value)!r} as {kind} {name!r} of {self._get_name()} "
                            f"({wanted} or None expected{hint})"
                        )
                    state[table][name] = value
                    return
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._non_persistent_buffers_set.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        names = {*object.__dir__(self)}
        for table in _TABLES:
            names.update(name for name in self.__dict__.get(table, ()) if name.isidentifier())
        return sorted(names)

    def _forget(self, name: str, kind: str, *tables: str) -> None:
        """Free ``name`` for a new parameter or module, so that one name never means two things."""
        if "_modules" not in self.__dict__:
            raise AttributeError(no_init(self, f"assign {kind} {name!r}"))
        self.__dict__.pop(name, None)
        for table in tables:
            self.__dict__[table].pop(name, None)
        self._non_persistent_buffers_set.discard(name)

    def _check_new_name(self, name: str, kind: str, own: Mapping[str, Any]) -> None:
        if "_modules" not in self.__dict__:
            raise AttributeError(no_init(self, f"assign {kind} {name!r}"))
        if not isinstance(name, str):
            raise TypeError(f"{self._get_name()}: {kind} name should be a string, got {type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got {name!r}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if hasattr(self, name) and name not in own:
            raise KeyError(f"attribute {name!r} already exists")

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter under ``name``; None reserves the name (``Linear(bias=False)`` does this)."""
        self._check_new_name(name, "parameter", self.__dict__.get("_parameters", {}))
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign {type_name(param)!r} object to parameter {name!r} (kobai.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"cannot assign non-leaf Tensor to parameter {name!r}: model parameters must be created explicitly; "
                "to express a parameter as a function of another tensor, compute it in forward()"
            )
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but not trained; ``persistent=False`` leaves it out of ``state_dict``."""
        self._check_new_name(name, "buffer", self.__dict__.get("_buffers", {}))
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign {type_name(tensor)!r} object to buffer {name!r} (kobai.Tensor or None required)"
            )
        self._buffers[name] = tensor
        if persistent:
            self._non_persistent_buffers_set.discard(name)
        else:
            self._non_persistent_buffers_set.add(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Add a child module under ``name``."""
        if module is not None and not isinstance(module, Tree):
            raise TypeError(f"{type_name(module)} is not a Module subclass")
        self._check_new_name(name, "module", self.__dict__.get("_modules", {}))
        self._modules[name] = module

    def register_module(self, name: str, module: Module | None) -> None:
        """The same as ``add_module``."""
        self.add_module(name, module)

    # -- walking the tree ---------------------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Yield (dotted name, module) for this module and all below it, each once unless told otherwise."""
        this = cast("Module", self)
        memo = set() if memo is None else memo
        if this in memo:
            return
        if remove_duplicate:
            memo.add(this)
        yield prefix, this
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """Yield this module and all below it, each once."""
        return (module for _, module in self.named_modules())

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Yield (name, module) for the direct children, each once."""
        seen: set[Module] = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """Yield the direct children, each once."""
        return (module for _, module in self.named_children())

    def _named_members(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, member in getattr(module, table).items():
                if member is None or id(member) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(member))
                yield (f"{path}.{name}" if path else name), member

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Yield (dotted name, parameter); a parameter shared by several layers comes once, under its first name."""
        return self._named_members("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Yield the parameters, each once: what an optimiser takes."""
        return (param for _, param in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield (dotted name, buffer), persistent or not."""
        return self._named_members("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Yield the buffers, each once."""
        return (buffer for _, buffer in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path; ``""`` is this module. Raises AttributeError."""
        module = cast("Module", self)
        for name in target.split(".") if target else ():
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(
                    f"{module._get_name()} has no submodule `{name}` (of {target!r})."
                    + nearest(name, list(module._modules))
                )
            module = child
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module at a dotted path, where there is one already if ``strict``. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        if not name:
            raise ValueError(f"{self._get_name()}.set_submodule: expected the name of a submodule, got {target!r}")
        owner = self.get_submodule(path)
        if strict:
            owner.get_submodule(name)
        owner.add_module(name, module)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError."""
        return self._get_member("_parameters", target)  # type: ignore[no-any-return]

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError."""
        return self._get_member("_buffers", target)  # type: ignore[no-any-return]

    def _get_member(self, table: str, target: str) -> Any:
        path, _, name = target.rpartition(".")
        owner = self.get_submodule(path)
        members: dict[str, Any] = getattr(owner, table)
        if members.get(name) is None:
            raise AttributeError(
                f"{owner._get_name()} has no {_TABLES[table][0]} `{name}` (of {target!r})."
                + nearest(name, list(members))
            )
        return members[name]

    # -- looks --------------------------------------------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of the layer's ``repr``; layers may write their own."""
        shown = {name: getattr(self, name) for name in self._repr_names}
        return ", ".join(
            f"{name}={value!r}" if isinstance(value, str) else f"{name}={value}" for name, value in shown.items()
        )

    def _repr_children(self) -> list[tuple[str, str]]:
        return [(name, repr(module)) for name, module in self._modules.items()]

    def _repr_html_(self) -> str:
        from kobai.nn.table import as_html

        return as_html(self)

    def __repr__(self) -> str:
        extra = self.extra_repr()
        extra_lines = extra.split("\n") if extra else []
        children = [f"({name}): " + text.replace("\n", "\n  ") for name, text in self._repr_children()]
        if not children and len(extra_lines) <= 1:
            return f"{self._get_name()}({extra})"
        return f"{self._get_name()}(\n  " + "\n  ".join(extra_lines + children) + "\n)"


def type_name(value: object) -> str:
    return type(value).__name__


def unusual(module: Tree, **usual: Any) -> str:
    """For an ``extra_repr``: ``, name=value`` of each attribute that differs from the value given here."""
    found = {name: getattr(module, name, value) for name, value in usual.items()}
    return "".join(f", {name}={value}" for name, value in found.items() if value != usual[name])


def no_init(module: Tree, what: str) -> str:
    name = type(module).__name__
    return f"cannot {what} before Module.__init__() call: start {name}.__init__ with super().__init__()"
