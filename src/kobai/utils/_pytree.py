"""Nested dicts, lists and tuples as a flat list of what they hold and a description of how: PyTorch's ``utils._pytree``."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = [
    "LeafSpec",
    "TreeSpec",
    "keystr",
    "register_pytree_node",
    "tree_all",
    "tree_all_only",
    "tree_any",
    "tree_any_only",
    "tree_flatten",
    "tree_flatten_with_path",
    "tree_is_leaf",
    "tree_iter",
    "tree_leaves",
    "tree_leaves_with_path",
    "tree_map",
    "tree_map_",
    "tree_map_only",
    "tree_map_only_",
    "tree_map_with_path",
    "tree_structure",
    "tree_unflatten",
]

PyTree = Any
Context = Any
IsLeaf = Callable[[Any], bool] | None


@dataclass(frozen=True)
class TreeSpec:
    """How a tree is nested: the type of a node, what else makes it (keys, say), and its children. A leaf has no type."""

    type: Any
    context: Any
    children_specs: list[TreeSpec]

    @property
    def num_leaves(self) -> int:
        return 1 if self.type is None else sum(child.num_leaves for child in self.children_specs)

    @property
    def num_children(self) -> int:
        return len(self.children_specs)

    def is_leaf(self) -> bool:
        return self.type is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TreeSpec) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class NodeDef(NamedTuple):
    """A type of nodes: what one holds, with its context; how to make one of them; and by which keys its children are found."""

    type: Any
    flatten_fn: Callable[[Any], tuple[list[Any], Any]]
    unflatten_fn: Callable[[Any, Any], Any]
    flatten_with_keys_fn: Callable[[Any], tuple[list[tuple[Any, Any]], Any]] | None = None


class SequenceKey(NamedTuple):
    """Of a child of a list or tuple: its number."""

    idx: int

    def __str__(self) -> str:
        return f"[{self.idx}]"

    def get(self, parent: Any) -> Any:
        """That child of ``parent``."""
        return parent[self.idx]


class MappingKey(NamedTuple):
    """Of a child of a mapping: its key."""

    key: Any

    def __str__(self) -> str:
        return f"[{self.key!r}]"

    def get(self, parent: Any) -> Any:
        """That child of ``parent``."""
        return parent[self.key]


class GetAttrKey(NamedTuple):
    """Of a child of a named tuple, or of an object: the attribute."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"

    def get(self, parent: Any) -> Any:
        """That child of ``parent``."""
        return getattr(parent, self.name)


def _dict_flatten(tree: Any) -> tuple[list[Any], Any]:
    return list(tree.values()), list(tree)


def _dict_unflatten(values: Any, context: Any) -> dict[Any, Any]:
    return dict(zip(context, values, strict=True))


def _listed(tree: Any) -> tuple[list[Any], Any]:
    return list(tree), None


SUPPORTED_NODES: dict[Any, NodeDef] = {
    dict: NodeDef(dict, _dict_flatten, _dict_unflatten),
    OrderedDict: NodeDef(OrderedDict, _dict_flatten, lambda v, context: OrderedDict(zip(context, v, strict=True))),
    defaultdict: NodeDef(
        defaultdict,
        lambda tree: (list(tree.values()), (tree.default_factory, list(tree))),
        lambda values, context: defaultdict(context[0], zip(context[1], values, strict=True)),
    ),
    list: NodeDef(list, _listed, lambda values, context: list(values)),
    tuple: NodeDef(tuple, _listed, lambda values, context: tuple(values)),
    deque: NodeDef(deque, lambda t: (list(t), t.maxlen), lambda values, context: deque(values, maxlen=context)),
}
"""The types of nodes; whatever else is found in a tree is a leaf."""

_NAMED_TUPLE = NodeDef(tuple, lambda tree: (list(tree), type(tree)), lambda values, context: context(*values))


def register_pytree_node(
    cls: Any, flatten_fn: Any, unflatten_fn: Any, *, flatten_with_keys_fn: Any = None, **names: Any
) -> None:
    """Have objects of ``cls`` taken apart: ``flatten_fn(object)`` gives children and a context, of which
    ``unflatten_fn(children, context)`` makes an object again. The other arguments name it in files, which Kobai has none of.

    >>> class Pair:
    ...     def __init__(self, a, b):
    ...         self.a, self.b = a, b
    >>> register_pytree_node(Pair, lambda pair: ([pair.a, pair.b], None), lambda children, context: Pair(*children))
    >>> tree_map(lambda x: 10 * x, {"pair": Pair(1, 2)})["pair"].b
    20
    """
    if cls in SUPPORTED_NODES:
        raise ValueError(f"register_pytree_node: {cls.__name__} is a node already")
    SUPPORTED_NODES[cls] = NodeDef(cls, flatten_fn, unflatten_fn, flatten_with_keys_fn)


_register_pytree_node = register_pytree_node


def _definition(tree: PyTree) -> NodeDef | None:
    """What takes a tree apart; None for a leaf."""
    found = SUPPORTED_NODES.get(type(tree))
    return _NAMED_TUPLE if found is None and is_namedtuple(tree) else found


def is_namedtuple(tree: PyTree) -> bool:
    """Whether it is an instance of a named tuple's class, or such a class."""
    kind = tree if isinstance(tree, type) else type(tree)
    return issubclass(kind, tuple) and hasattr(kind, "_fields")


def tree_is_leaf(tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether a tree is one leaf."""
    return (is_leaf is not None and is_leaf(tree)) or _definition(tree) is None


def _get_node_type(tree: PyTree) -> Any:
    """Under which type the tree's first node is found among the supported ones."""
    return namedtuple if _definition(tree) is _NAMED_TUPLE else type(tree)


def tree_flatten(tree: PyTree, is_leaf: IsLeaf = None) -> tuple[list[Any], TreeSpec]:
    """The leaves of a tree from left to right, and its structure; ``is_leaf`` stops at nodes for which it is true.

    >>> leaves, spec = tree_flatten({"a": 1, "b": [2, (3, None)]})
    >>> leaves
    [1, 2, 3, None]
    >>> tree_unflatten([10, 20, 30, 40], spec)
    {'a': 10, 'b': [20, (30, 40)]}
    """
    node = None if is_leaf is not None and is_leaf(tree) else _definition(tree)
    if node is None:
        return [tree], LeafSpec()
    children, context = node.flatten_fn(tree)
    flat = [tree_flatten(child, is_leaf) for child in children]
    return [leaf for leaves, _ in flat for leaf in leaves], TreeSpec(type(tree), context, [spec for _, spec in flat])


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> PyTree:
    """The tree of this structure with these leaves."""
    values = list(leaves)
    if len(values) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten: expected {treespec.num_leaves} leaves, got {len(values)}")
    rest = iter(values)

    def build(spec: TreeSpec) -> PyTree:
        if spec.type is None:
            return next(rest)
        return SUPPORTED_NODES.get(spec.type, _NAMED_TUPLE).unflatten_fn(
            [build(child) for child in spec.children_specs], spec.context
        )

    return build(treespec)


def tree_leaves(tree: PyTree, is_leaf: IsLeaf = None) -> list[Any]:
    """The leaves of a tree, from left to right."""
    return tree_flatten(tree, is_leaf)[0]


def tree_iter(tree: PyTree, is_leaf: IsLeaf = None) -> Any:
    """An iterator over the leaves of a tree."""
    return iter(tree_leaves(tree, is_leaf))


def tree_structure(tree: PyTree, is_leaf: IsLeaf = None) -> TreeSpec:
    """How a tree is nested."""
    return tree_flatten(tree, is_leaf)[1]


def tree_map(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: IsLeaf = None) -> PyTree:
    """A tree like ``tree`` with ``func`` of every leaf, and of what stands in its place in ``rests``.

    >>> tree_map(lambda a, b: a + b, [1, {"x": 2}], [10, {"x": 20}])
    [11, {'x': 22}]
    """
    leaves, spec = tree_flatten(tree, is_leaf)
    others = [tree_leaves(rest, is_leaf) for rest in rests]
    return tree_unflatten(map(func, leaves, *others), spec)


def tree_map_(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: IsLeaf = None) -> PyTree:
    """Call ``func`` as :func:`tree_map` does, and return ``tree`` itself."""
    tree_map(func, tree, *rests, is_leaf=is_leaf)
    return tree


def tree_map_only(kind: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: IsLeaf = None) -> PyTree:
    """As :func:`tree_map`, of the leaves of a type, or of one of several; the others stay as they are.

    >>> tree_map_only(int, lambda n: n + 1, [1, "text"])
    [2, 'text']
    """
    return tree_map(lambda leaf: func(leaf) if isinstance(leaf, kind) else leaf, tree, is_leaf=is_leaf)


def tree_all(pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` holds for all leaves."""
    return all(map(pred, tree_leaves(tree, is_leaf)))


def tree_any(pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` holds for a leaf."""
    return any(map(pred, tree_leaves(tree, is_leaf)))


def tree_flatten_with_path(tree: PyTree, is_leaf: IsLeaf = None) -> tuple[list[tuple[tuple[Any, ...], Any]], TreeSpec]:
    """As :func:`tree_flatten`, every leaf with the keys that lead to it.

    >>> leaves, _ = tree_flatten_with_path({"a": [1, 2]})
    >>> [(keystr(path), leaf) for path, leaf in leaves]
    [("['a'][0]", 1), ("['a'][1]", 2)]
    """

    def walk(tree: PyTree, path: tuple[Any, ...]) -> list[tuple[tuple[Any, ...], Any]]:
        node = None if is_leaf is not None and is_leaf(tree) else _definition(tree)
        if node is None:
            return [(path, tree)]
        if node.flatten_with_keys_fn is not None:
            pairs: Any = node.flatten_with_keys_fn(tree)[0]
        else:
            pairs = zip(_keys(tree), node.flatten_fn(tree)[0], strict=True)
        return [leaf for key, child in pairs for leaf in walk(child, (*path, key))]

    return walk(tree, ()), tree_structure(tree, is_leaf)


def _keys(tree: PyTree) -> list[Any]:
    if isinstance(tree, dict):
        return list(map(MappingKey, tree))
    if is_namedtuple(tree):
        return list(map(GetAttrKey, tree._fields))
    if isinstance(tree, (list, tuple, deque)):
        return list(map(SequenceKey, range(len(tree))))
    raise ValueError(f"tree_flatten_with_path: {type(tree).__name__} was registered without flatten_with_keys_fn")


def tree_map_with_path(func: Callable[..., Any], tree: PyTree, *rests: PyTree, is_leaf: IsLeaf = None) -> PyTree:
    """As :func:`tree_map`, with ``func(path, leaf, ...)``."""
    found, spec = tree_flatten_with_path(tree, is_leaf)
    others = [tree_leaves(rest, is_leaf) for rest in rests]
    return tree_unflatten([func(*pair, *more) for pair, *more in zip(found, *others, strict=True)], spec)


def tree_leaves_with_path(tree: PyTree, is_leaf: IsLeaf = None) -> list[tuple[tuple[Any, ...], Any]]:
    """The leaves with the keys that lead to them."""
    return tree_flatten_with_path(tree, is_leaf)[0]


def keystr(path: Any) -> str:
    """Keys as they would be written behind a tree's name."""
    return "".join(map(str, path))


def tree_map_only_(kind: Any, func: Callable[[Any], Any], tree: PyTree, is_leaf: IsLeaf = None) -> PyTree:
    """Call ``func`` as :func:`tree_map_only` does, and return ``tree`` itself."""
    tree_map_only(kind, func, tree, is_leaf)
    return tree


def tree_all_only(kind: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` holds for all leaves of a type."""
    return all(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kind))


def tree_any_only(kind: Any, pred: Callable[[Any], bool], tree: PyTree, is_leaf: IsLeaf = None) -> bool:
    """Whether ``pred`` holds for a leaf of a type."""
    return any(pred(leaf) for leaf in tree_leaves(tree, is_leaf) if isinstance(leaf, kind))


class LeafSpec(TreeSpec):
    """The structure of a leaf."""

    def __init__(self) -> None:
        super().__init__(None, None, [])
