"""kobai.utils._pytree, which several libraries use for nested inputs and outputs."""

import importlib
from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

import kobai
from kobai.utils import _pytree
from kobai.utils._pytree import (
    tree_all,
    tree_any,
    tree_flatten,
    tree_iter,
    tree_leaves,
    tree_map,
    tree_map_,
    tree_map_only,
    tree_structure,
    tree_unflatten,
)

Point = namedtuple("Point", "x y")

TREES = [
    3,
    None,
    [],
    [1, (2, [3, {}])],
    {"b": 1, "a": [2]},
    OrderedDict(z=1, a=(2,)),
    defaultdict(list, {"a": [1, 2]}),
    deque([1, 2], maxlen=3),
    Point(1, {"k": Point(2, 3)}),
    kobai.Size([2, 3]),
]


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: type(tree).__name__)
def test_apart_and_together(tree):
    leaves, spec = tree_flatten(tree)
    assert spec == tree_structure(tree)
    assert spec.num_leaves == len(leaves) == len(list(tree_iter(tree)))
    again = tree_unflatten(leaves, spec)
    assert again == tree
    assert type(again) is type(tree)
    with pytest.raises(ValueError, match="leaves"):
        tree_unflatten([*leaves, 1], spec)


def test_functions_of_leaves():
    x = {"a": kobai.ones(2), "b": [kobai.zeros(1), "text"]}
    doubled = tree_map_only(kobai.Tensor, lambda t: t + 1, x)
    assert doubled["a"].tolist() == [2, 2]
    assert doubled["b"][1] == "text"
    assert tree_map(lambda a, b: (a, b), [1, 2], [3, 4]) == [(1, 3), (2, 4)]
    assert tree_leaves([(1, 2), 3], is_leaf=lambda t: isinstance(t, tuple)) == [(1, 2), 3]
    seen = []
    tree = [1, {"k": 2}]
    assert tree_map_(seen.append, tree) is tree
    assert seen == [1, 2]
    assert tree_any(lambda n: n > 1, tree)
    assert not tree_all(lambda n: n > 1, tree)


class Pair:
    def __init__(self, a, b):
        self.a, self.b = a, b


def registered(t):
    """What ``t._pytree`` says of trees with a type that programs register."""
    if Pair not in t.SUPPORTED_NODES:
        t.register_pytree_node(
            Pair,
            lambda pair: ([pair.a, pair.b], "context"),
            lambda children, context: Pair(*children),
            flatten_with_keys_fn=lambda pair: ([(t.GetAttrKey("a"), pair.a), (t.GetAttrKey("b"), pair.b)], "context"),
        )
    tree = {"x": Pair(1, [2, Point(3, (4,))]), "y": None}
    leaves, spec = t.tree_flatten(tree)
    doubled = t.tree_map_only(int, lambda n: 2 * n, tree)
    paths = t.tree_map_with_path(lambda path, leaf: t.keystr(path), tree)
    return [
        leaves,
        spec.num_leaves,
        t.tree_unflatten(leaves, spec)["x"].b,
        doubled["x"].a,
        t.tree_leaves(paths),
        [t.keystr(path) for path, _ in t.tree_leaves_with_path(tree)],
        t.tree_is_leaf(tree),
        t.tree_is_leaf(3),
        t.tree_all_only(int, lambda n: n > 0, tree),
        t.tree_any_only(int, lambda n: n > 4, tree),
        isinstance(t.tree_structure(3), t.LeafSpec),
        t.tree_structure(tree) == t.tree_structure(doubled),
        t._get_node_type(tree["x"]) is Pair,
    ]


@pytest.mark.oracle
def test_types_of_ones_own_as_in_pytorch():
    assert registered(_pytree) == registered(importlib.import_module("torch.utils._pytree"))


def test_types_of_ones_own_and_paths():
    assert registered(_pytree)[4] == ["['x'].a", "['x'].b[0]", "['x'].b[1].x", "['x'].b[1].y[0]", "['y']"]
    with pytest.raises(ValueError, match="Pair is a node already"):
        _pytree.register_pytree_node(Pair, None, None)
