"""kobai.utils._pytree, which several libraries use for nested inputs and outputs."""

from collections import OrderedDict, defaultdict, deque, namedtuple

import pytest

import kobai
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
