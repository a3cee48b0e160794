"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

import copy
from collections import OrderedDict

import pytest

import kobai
from kobai import nn


def three():
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def names(container):
    return list(container._modules)


# --- Sequential ---------------------------------------------------------------------------------------------------


def test_sequential_applies_in_order():
    net = three()
    x = kobai.ones(5, 4)
    assert net(x).tolist() == net[2](net[1](net[0](x))).tolist()
    assert nn.Sequential()(x) is x
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear"]
    assert len(net) == 3


def test_sequential_by_name():
    net = nn.Sequential(OrderedDict([("a", nn.ReLU()), ("b", nn.Tanh()), ("c", nn.ReLU())]))
    assert names(net) == ["a", "b", "c"]
    assert net.b is net[1]
    assert names(net[1:]) == ["b", "c"]
    assert list(nn.Sequential({"x": nn.Linear(1, 1)}).state_dict()) == ["x.weight", "x.bias"]
    del net[0]
    assert names(net) == ["b", "c"]


def test_sequential_index_slice_assign_delete():
    net = three()
    assert net[-1] is net[2]
    assert isinstance(net[:2], nn.Sequential)
    assert net[:2][0] is net[0]
    new = nn.Tanh()
    net[1] = new
    assert net[1] is new
    assert names(net) == ["0", "1", "2"]
    del net[0]
    assert names(net) == ["0", "1"]
    assert net[0] is new
    del net[:]
    assert len(net) == 0
    with pytest.raises(IndexError, match=r"Sequential: index 3 is out of range for 3 module\(s\)"):
        three()[3]
    with pytest.raises(IndexError):
        three()[-4]


def test_sequential_grows():
    net = nn.Sequential()
    assert net.append(nn.ReLU()) is net
    assert net.extend([nn.Tanh(), nn.Sigmoid()]) is net
    assert net.insert(1, nn.Identity()) is net
    assert [type(m).__name__ for m in net] == ["ReLU", "Identity", "Tanh", "Sigmoid"]
    assert names(net) == list("0123")
    assert isinstance(net.pop(1), nn.Identity)
    assert names(net) == list("012")
    assert isinstance(net.pop(), nn.Sigmoid)
    net += nn.Sequential(nn.ELU())
    assert len(net) == 3
    assert len(net + nn.Sequential(nn.ReLU())) == 4
    assert len(net) == 3
    assert len(net * 2) == 6
    assert len(2 * net) == 6
    net *= 2
    assert len(net) == 6
    assert net[0] is net[3]
    net.extend(net)  # of itself: ends
    assert len(net) == 12


def test_sequential_refuses():
    with pytest.raises(TypeError, match=r"Sequential: expected a kobai\.nn\.Module, got int"):
        nn.Sequential(1)
    with pytest.raises(TypeError, match="got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(TypeError, match="only a Sequential can be added"):
        nn.Sequential() + nn.ReLU()
    with pytest.raises(IndexError, match="insert"):
        nn.Sequential().insert(3, nn.ReLU())
    with pytest.raises(ValueError, match="positive"):
        three() * 0
    net = three()
    with pytest.raises(TypeError, match="got NoneType"):
        net[0] = None


def test_subclass_of_sequential():
    class Block(nn.Sequential):
        def __init__(self, *layers):
            super().__init__(*layers)
            self.scale = nn.Parameter(kobai.ones(1))

    assert list(Block(nn.Linear(1, 1)).state_dict()) == ["scale", "0.weight", "0.bias"]


# --- ModuleList ---------------------------------------------------------------------------------------------------


def test_module_list():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert list(layers.state_dict()) == [f"{i}.{p}" for i in range(3) for p in ("weight", "bias")]
    layers.insert(0, nn.ReLU())
    assert names(layers) == list("0123")
    assert isinstance(layers[0], nn.ReLU)
    layers.append(nn.Tanh()).extend([nn.ELU()])
    assert len(layers) == 6
    assert isinstance(layers[1:3], nn.ModuleList)
    assert len(layers[1:3]) == 2
    assert isinstance(layers.pop(0), nn.ReLU)
    assert len(layers) == 5
    layers += [nn.ReLU()]
    assert len(layers) == 6
    assert len(layers.__add__([nn.ReLU()])) == 7
    del layers[1:3]
    assert names(layers) == list("0123")
    layers[0] = nn.Identity()
    assert isinstance(layers[0], nn.Identity)
    assert len(nn.ModuleList()) == 0
    with pytest.raises(NotImplementedError, match="ModuleList"):
        layers(1)
    with pytest.raises(TypeError, match="iterable"):
        nn.ModuleList(3)
    with pytest.raises(TypeError, match="got int"):
        nn.ModuleList([3])


def test_module_list_repr_counts_repeats():
    layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)])
    assert repr(layers) == (
        "ModuleList(\n"
        "  (0-1): 2 x Linear(in_features=2, out_features=2, bias=True)\n"
        "  (2): ReLU()\n"
        "  (3): Linear(in_features=2, out_features=2, bias=True)\n"
        ")"
    )
    assert repr(nn.ModuleList()) == "ModuleList()"


# --- ModuleDict ---------------------------------------------------------------------------------------------------


def test_module_dict():
    d = nn.ModuleDict({"relu": nn.ReLU(), "fc": nn.Linear(1, 1)})
    assert list(d) == list(d.keys()) == ["relu", "fc"]
    assert "fc" in d
    assert len(d) == 2
    assert [k for k, _ in d.items()] == ["relu", "fc"]
    assert len(list(d.values())) == 2
    d["fc"] = nn.Tanh()
    d.update([("new", nn.ELU())])
    d.update(nn.ModuleDict({"last": nn.SELU()}))
    assert list(d) == ["relu", "fc", "new", "last"]
    assert isinstance(d["fc"], nn.Tanh)
    assert isinstance(d.pop("new"), nn.ELU)
    del d["last"]
    assert list(d) == ["relu", "fc"]
    with pytest.raises(KeyError, match=r"Did you mean 'relu'"):
        d["rleu"]
    with pytest.raises(TypeError, match="not a Module"):
        d["x"] = 3
    d.clear()
    assert len(d) == 0


# --- parameters ---------------------------------------------------------------------------------------------------


def test_parameter_list():
    p = nn.ParameterList([nn.Parameter(kobai.ones(2)), kobai.zeros(2, 3)])
    assert all(isinstance(x, nn.Parameter) for x in p)
    assert len(p) == 2
    assert list(p.state_dict()) == ["0", "1"]
    p.append(kobai.zeros(())).extend([kobai.zeros(1)])
    p += [kobai.zeros(4)]
    assert p[-1].shape == (4,)
    assert len(p[1:3]) == 2
    assert len(p) == 5
    p[0] = kobai.zeros(7)
    assert p[0].shape == (7,)
    assert len(list(p.parameters())) == 5
    assert repr(p[:2]) == (
        "ParameterList(\n"
        "    (0): Parameter containing: [kobai.float32 of size 7]\n"
        "    (1): Parameter containing: [kobai.float32 of size 2x3]\n"
        ")"
    )
    with pytest.raises(IndexError, match="out of range"):
        p[5]
    for nonsense in (3, kobai.ones(2)):
        with pytest.raises(TypeError, match="iterable"):
            nn.ParameterList(nonsense)


def test_parameter_list_holds_other_values():
    """A list of lists, of modules, of numbers: parameters and modules are the owner's too, the rest is just kept."""
    inner = nn.ParameterList([kobai.ones(2), kobai.ones(3)])
    p = nn.ParameterList([kobai.zeros(1), inner, 3, None, nn.Linear(2, 1)])
    assert [name for name, _ in p.named_parameters()] == ["0", "1.0", "1.1", "4.weight", "4.bias"]
    assert len(p) == 5
    assert p[1] is inner
    assert p[2] == 3
    assert p[3] is None
    assert list(p)[2:4] == [3, None]
    p[2] = kobai.ones(4)  # and a value may become another kind
    assert isinstance(p[2], nn.Parameter)
    p[0] = "text"
    assert p[0] == "text"
    assert [name for name, _ in p.named_parameters()] == ["2", "1.0", "1.1", "4.weight", "4.bias"]
    assert p.pop(0) == "text"
    assert p[0] is inner
    assert len(p) == 4
    assert copy.deepcopy(p)[0][1].shape == (3,)
    model = nn.Module()
    model.weights = p
    model.load_state_dict(model.state_dict())
    assert "weights.0.1" in model.state_dict()


def test_none_keeps_a_place_in_lists_of_modules():
    layers = nn.ModuleList([nn.Linear(2, 3), None])
    layers.append(None)
    assert len(layers) == 3
    assert layers[1] is None
    assert list(layers.state_dict()) == ["0.weight", "0.bias"]
    layers[1] = nn.ReLU()
    assert [type(m).__name__ for m in layers] == ["Linear", "ReLU", "NoneType"]
    assert "None" in repr(layers)
    assert nn.ModuleDict({"a": None})["a"] is None


def test_parameter_dict():
    p = nn.ParameterDict({"a": kobai.ones(2)})
    p["b"] = nn.Parameter(kobai.ones(3))
    p.update({"c": kobai.ones(1)})
    assert list(p) == list(p.keys()) == list(p.state_dict()) == ["a", "b", "c"]
    assert "a" in p
    assert len(p) == 3
    assert p.get("zzz") is None
    assert p.get("a") is p["a"]
    assert p.a is p["a"]
    assert [k for k, _ in p.items()] == ["a", "b", "c"]
    assert len(list(p.values())) == 3
    assert p.pop("c").shape == (1,)
    del p["b"]
    with pytest.raises(KeyError, match="not in this ParameterDict"):
        p["b"]
    p["x"] = 3
    assert p["x"] == 3
    assert p.setdefault("x", 4) == 3
    assert isinstance(p.setdefault("y", kobai.ones(1)), nn.Parameter)
    assert list(p.copy()) == ["a", "x", "y"]
    p.clear()
    assert len(p) == 0


def test_containers_deepcopy():
    for c in (
        three(),
        nn.ModuleList([nn.ReLU()]),
        nn.ParameterList([kobai.ones(1)]),
        nn.ParameterDict({"a": kobai.ones(1)}),
    ):
        assert repr(copy.deepcopy(c)) == repr(c)


@pytest.mark.oracle
def test_parameters_in_containers_show_themselves_as_in_pytorch():
    torch = pytest.importorskip("torch")
    texts = []
    for lib in (torch, kobai):
        p = lib.nn.Parameter(lib.ones(2, 3))
        each = lib.nn.ParameterList([p, lib.nn.Parameter(lib.ones(())), 3, lib.nn.Linear(1, 2)])
        named = lib.nn.ParameterDict(
            {"a": p, "b": "x", "n": lib.nn.ParameterList([p]), "s": lib.nn.Sequential(lib.nn.ReLU())}
        )
        inside = lib.nn.ModuleDict({"d": lib.nn.ParameterDict({"k": p}), "m": lib.nn.MultiheadAttention(4, 2)})
        loaded = lib.nn.Linear(2, 2).load_state_dict({}, strict=False)
        shown = each, named, inside, lib.nn.ParameterList(), loaded
        texts.append([repr(x).replace("kobai.", "torch.") for x in shown])
    assert texts[1] == texts[0]
