"""Nested dicts, lists and tuples as a flat list of what they hold and a description of how: PyTorch's ``utils._pytree``."""

from __future__ import annotations

from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "TreeSpec",
    "tree_all",
    "tree_any",
    "tree_flatten",
    "tree_iter",
    "tree_leaves",
    "tree_map",
    "tree_map_",
    "tree_map_only",
    "tree_structure",
    "tree_unflatten",
]

PyTree = Any
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


def _children(tree: PyTree) -> tuple[list[Any], Any] | None:
    """What a node holds, and its context; None for a leaf."""
    kind = type(tree)
    if kind in (dict, OrderedDict):
        return list(tree.values()), list(tree)
    if kind is defaultdict:
        return list(tree.values()), (tree.default_factory, list(tree))
    if kind in (list, tuple):
        return list(tree), None
    if kind is deque:
        return list(tree), tree.maxlen
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return list(tree), kind
    return None


def _node(kind: Any, context: Any, children: list[Any]) -> PyTree:
    if kind in (dict, OrderedDict):
        return kind(zip(context, children, strict=True))
    if kind is defaultdict:
        factory, keys = context
        return defaultdict(factory, zip(keys, children, strict=True))
    if kind is deque:
        return deque(children, maxlen=context)
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def tree_flatten(tree: PyTree, is_leaf: IsLeaf = None) -> tuple[list[Any], TreeSpec]:
    """The leaves of a tree from left to right, and its structure; ``is_leaf`` stops at nodes for which it is true.

    >>> leaves, spec = tree_flatten({"a": 1, "b": [2, (3, None)]})
    >>> leaves
    [1, 2, 3, None]
    >>> tree_unflatten([10, 20, 30, 40], spec)
    {'a': 10, 'b': [20, (30, 40)]}
    """
    found = None if is_leaf is not None and is_leaf(tree) else _children(tree)
    if found is None:
        return [tree], TreeSpec(None, None, [])
    children, context = found
    flat = [tree_flatten(child, is_leaf) for child in children]
    return [leaf for leaves, _ in flat for leaf in leaves], TreeSpec(type(tree), context, [spec for _, spec in flat])


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> PyTree:
    """The tree of this structure with these leaves."""
    values = list(leaves)
    if len(values) != treespec.num_leaves:
        raise ValueError(f"tree_unflatten: expected {treespec.num_leaves} leaves, got {len(values)}")
    rest = iter(values)

    def build(spec: TreeSpec) -> PyTree:
        return (
            next(rest) if spec.type is None else _node(spec.type, spec.context, [build(c) for c in spec.children_specs])
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
