"""kobai.utils.data: default_collate and default_convert."""

from collections import OrderedDict, UserDict, defaultdict, namedtuple
from types import MappingProxyType

import numpy as np
import pytest

import kobai
from kobai.utils.data import default_collate, default_convert

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("batch", "dtype", "values"),
    [
        ([1, 2], "int64", [1, 2]),
        ([1.5, 2], "float64", [1.5, 2.0]),
        ([1, 2.5], "float32", [1.0, 2.5]),
        ([True, False], "bool", [True, False]),
        ([np.float32(1), np.float32(2)], "float32", [1.0, 2.0]),
        ([np.float64(1)], "float64", [1.0]),
        ([np.int32(3), np.int32(4)], "int32", [3, 4]),
        ([np.bool_(True)], "bool", [True]),
        ([np.array([1, 2], dtype=np.uint8), np.array([3, 4], dtype=np.uint8)], "uint8", [[1, 2], [3, 4]]),
        ([np.array(7.0)], "float64", [7.0]),
    ],
)
def test_numbers_and_arrays(batch, dtype, values):
    out = default_collate(batch)
    assert isinstance(out, kobai.Tensor)
    assert out.dtype == np.dtype(dtype)
    assert out.tolist() == values


def test_tensors_are_stacked():
    out = default_collate([kobai.zeros(2, 3), kobai.ones(2, 3)])
    assert out.shape == (2, 2, 3)
    assert out.dtype == np.float32
    assert out[1].sum().item() == 6


def test_tensors_are_stacked_where_they_are(backend):
    samples = [kobai.ones(2), kobai.zeros(2)]
    where = samples[0].device
    kobai.use("numpy")
    out = default_collate(samples)
    assert out.device == where
    assert out.shape == (2, 2)
    assert default_collate([samples[0].sum(), samples[1].sum()]).shape == (2,)


def test_tensors_of_several_dtypes_are_promoted_and_of_several_devices_refused():
    assert default_collate([kobai.tensor(1), kobai.tensor(2.5)]).dtype == np.float32
    with kobai.using("strict"):
        far = kobai.zeros(2)
    with pytest.raises(RuntimeError, match="stack"):
        default_collate([kobai.zeros(2), far])


def test_a_batch_of_arrays_does_not_share_memory():
    sample = np.zeros(2)
    out = default_collate([sample])
    sample[0] = 5
    assert out.tolist() == [[0.0, 0.0]]


def test_gradient_flows_through_stacked_tensors():
    w = kobai.ones(2, requires_grad=True)
    default_collate([w, w]).sum().backward()
    assert w.grad.tolist() == [2.0, 2.0]


def test_containers():
    out = default_collate([(1, "a", [2.0, 3.0]), (4, "b", [5.0, 6.0])])
    assert type(out) is list
    assert out[0].tolist() == [1, 4]
    assert out[1] == ("a", "b")
    assert [c.tolist() for c in out[2]] == [[2.0, 5.0], [3.0, 6.0]]
    assert default_collate([b"a", b"b"]) == [b"a", b"b"]
    point = default_collate([Point(1, 2), Point(3, 4)])
    assert type(point) is Point
    assert point.y.tolist() == [2, 4]
    assert default_collate([(), ()]) == []


@pytest.mark.parametrize(
    "kind", [dict, OrderedDict, UserDict, lambda d: defaultdict(list, d), lambda d: MappingProxyType(d)]
)
def test_mappings_keep_their_type(kind):
    sample = kind({"x": 1, "deep": {"y": 2.0}})
    out = default_collate([sample, sample])
    assert type(out) is type(sample)
    assert out["x"].tolist() == [1, 1]
    assert out["deep"]["y"].dtype == np.float64
    if isinstance(out, defaultdict):
        assert out.default_factory is list


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([], ValueError, "empty batch"),
        ([None], TypeError, "got NoneType; give a collate_fn"),
        ([object()], TypeError, "got object"),
        ([np.array("a")], TypeError, "dtype <U1"),
        ([np.array([None])], TypeError, "dtype object"),
        ([kobai.zeros(2), kobai.zeros(3)], RuntimeError, r"equal shapes, got \(2,\) and \(3,\)"),
        ([np.zeros(2), np.zeros((2, 1))], RuntimeError, r"one shape, got \(2,\) and \(2, 1\)"),
        ([kobai.zeros(2), None], TypeError, "Tensor and NoneType"),
        ([np.zeros(2), kobai.zeros(2)], TypeError, "ndarray and Tensor"),
        ([(1, 2), (1,)], RuntimeError, r"one length, got lengths \[1, 2\]"),
        ([1, "a"], TypeError, "expected numbers as 1"),
        ([1.0, "2"], TypeError, "expected numbers as 1.0"),
        ([1.0, None], TypeError, "expected numbers"),
        ([2**70], TypeError, "at most 64 bits"),
        ([{"a": 1}, {"b": 1}], KeyError, "'a'"),
        ([{"a": 1}, 3], KeyError, "'a'"),
    ],
)
def test_what_cannot_be_collated(batch, error, message):
    with pytest.raises(error, match=message):
        default_collate(batch)


def test_convert_leaves_everything_but_arrays():
    t = kobai.zeros(2)
    out = default_convert(
        {"a": np.ones(2, dtype=np.int32), "t": t, "n": 3, "s": "x", "p": Point(np.zeros(1), 1), "l": (1,)}
    )
    assert out["a"].dtype == np.int32
    assert out["t"] is t
    assert out["n"] == 3
    assert out["s"] == "x"
    assert type(out["p"]) is Point
    assert isinstance(out["p"].x, kobai.Tensor)
    assert out["l"] == [1]
    assert default_convert(np.float32(3)).item() == 3.0
    assert default_convert([np.ones(1)])[0].tolist() == [1.0]


def test_batches_by_a_table_of_types():
    from kobai.utils.data._utils.collate import collate, default_collate, default_collate_fn_map

    table = {**default_collate_fn_map, str: lambda batch, *, collate_fn_map: "+".join(batch)}
    batch = [{"x": kobai.ones(2), "name": "a", "pair": (1, "b")}, {"x": kobai.zeros(2), "name": "c", "pair": (2, "d")}]
    made = collate(batch, collate_fn_map=table)
    assert made["name"] == "a+c"
    assert made["pair"][1] == "b+d"
    plain = default_collate(batch)
    assert made["x"].equal(plain["x"])
    assert made["pair"][0].equal(plain["pair"][0])
