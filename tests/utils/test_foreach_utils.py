"""kobai.utils._foreach_utils, which libraries of optimisers import."""

import pytest

import kobai as k
from kobai.utils._foreach_utils import _group_tensors_by_device_and_dtype as group


def test_columns_go_by_device_and_dtype_of_their_first_tensor():
    a, b, c = k.ones(2), k.ones(3, dtype=k.float64), k.zeros(1)
    groups = group([[a, b, c], [None, a, b]], with_indices=True)
    assert list(groups) == [(a.device, k.float32), (a.device, k.float64)]
    (params, states), indices = groups[a.device, k.float32]
    assert params[0] is a
    assert params[1] is c
    assert len(params) == 2
    assert states[0] is None
    assert states[1] is b
    assert indices == [0, 2]
    (params, states), indices = groups[a.device, k.float64]
    assert params[0] is b
    assert states[0] is a
    assert indices == [1]


def test_without_indices_none_are_given():
    assert [indices for _, indices in group([[k.ones(2)]]).values()] == [[]]
    assert group([[], []]) == {} == group([])


def test_lists_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"expected lists of one length, got lengths \[1, 0\]"):
        group([[k.ones(1)], []])
    with pytest.raises(ValueError, match="got None at 0"):
        group([[None]])


@pytest.mark.oracle
def test_groups_are_torchs():
    torch = pytest.importorskip("torch")
    from torch.utils._foreach_utils import _group_tensors_by_device_and_dtype as theirs

    def shape(t, function):
        lists = [[t.ones(1), t.ones(2, dtype=t.float64), t.ones(3)], [None, t.ones(4), None]]
        return sorted(
            (
                str(dtype).split(".")[-1],
                [[None if x is None else tuple(x.shape) for x in part] for part in parts],
                indices,
            )
            for (_, dtype), (parts, indices) in function(lists, with_indices=True).items()
        )

    assert shape(k, group) == shape(torch, theirs)
