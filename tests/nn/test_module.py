"""Module: attributes, walking, state, conversion, hooks, looks."""

import copy
import gc
import timeit
import weakref
from collections import OrderedDict

import numpy as np
import pytest

import kobai
from kobai import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 3)
        self.act = nn.ReLU()
        self.fc2 = nn.Linear(3, 2, bias=False)
        self.register_buffer("scale", kobai.ones(2))
        self.register_buffer("scratch", kobai.zeros(1), persistent=False)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x))) * self.scale


class Scale(nn.Module):
    """y = w x, small enough to compute by hand."""

    def __init__(self, w=2.0):
        super().__init__()
        self.w = nn.Parameter(kobai.tensor([w]))

    def forward(self, x, bias=0.0):
        return self.w * x + bias


def same(a, b):
    return np.array_equal(a.detach().numpy(), b.detach().numpy())


# --- attributes ---------------------------------------------------------------------------------------------------


def test_assignment_registers():
    net = Net()
    assert [n for n, _ in net.named_parameters()] == ["fc1.weight", "fc1.bias", "fc2.weight"]
    assert [n for n, _ in net.named_buffers()] == ["scale", "scratch"]
    assert [n for n, _ in net.named_children()] == ["fc1", "act", "fc2"]
    assert [n for n, _ in net.named_modules()] == ["", "fc1", "act", "fc2"]
    assert net.fc2.bias is None
    assert "bias" in net.fc2._parameters


def test_a_name_means_one_thing():
    m = nn.Module()
    m.x = 1
    m.x = nn.Parameter(kobai.ones(1))
    assert "x" not in m.__dict__
    assert isinstance(m.x, nn.Parameter)
    m.x = None
    assert m.x is None
    assert "x" in m._parameters
    m.x = nn.ReLU()
    assert "x" not in m._parameters
    assert isinstance(m.x, nn.ReLU)
    m.x = None
    m.x = nn.Parameter(kobai.ones(1))
    assert "x" not in m._modules
    del m.x
    assert not hasattr(m, "x")
    m.y = 3
    del m.y
    assert not hasattr(m, "y")
    with pytest.raises(AttributeError):
        del m.y


def test_buffer_is_replaced_and_deleted():
    net = Net()
    net.scale = kobai.zeros(2)
    assert same(net.state_dict()["scale"], kobai.zeros(2))
    net.scale = None
    assert "scale" not in net.state_dict()
    assert net.scale is None
    del net.scratch
    assert [n for n, _ in net.named_buffers()] == []
    net.register_buffer("scratch", kobai.zeros(3))
    assert "scratch" in net.state_dict()


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("weight", kobai.ones(2), "parameter"), ("bias", 1.0, "parameter")],
)
def test_wrong_value_for_a_parameter(name, value, kind):
    with pytest.raises(TypeError, match=rf"cannot assign .* as {kind} '{name}' of Linear"):
        setattr(nn.Linear(2, 2), name, value)


def test_wrong_value_for_module_and_buffer():
    net = Net()
    with pytest.raises(TypeError, match="cannot assign 'int' as child module 'fc1'"):
        net.fc1 = 3
    with pytest.raises(TypeError, match="cannot assign 'float' as buffer 'scale'"):
        net.scale = 3.0


def test_super_init_is_required():
    class Bad(nn.Module):
        def __init__(self, value):
            self.value = value

    for value in (nn.ReLU(), nn.Parameter(kobai.ones(1))):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call: start Bad.__init__ with super"):
            Bad(value)
    bad = Bad(3)  # an ordinary attribute does no harm, as in PyTorch
    with pytest.raises(AttributeError, match="super"):
        _ = bad.weight
    with pytest.raises(AttributeError, match="super"):
        bad(1)
    for register in (bad.register_parameter, bad.register_buffer, bad.add_module):
        with pytest.raises(AttributeError, match="super"):
            register("x", None)


def test_unknown_attribute_offers_the_nearest():
    with pytest.raises(AttributeError, match=r"^'Net' object has no attribute 'fc3'. Did you mean 'fc\d'\?$"):
        _ = Net().fc3
    with pytest.raises(AttributeError, match=r"^'Net' object has no attribute 'qqqqqq'$"):
        _ = Net().qqqqqq
    assert getattr(Net(), "_private", None) is None


def test_dir_lists_members():
    assert {"fc1", "scale", "forward"} <= set(dir(Net()))
    assert "0" not in dir(nn.Sequential(nn.ReLU()))


@pytest.mark.parametrize(
    ("register", "name", "value", "error", "message"),
    [
        ("register_parameter", "a.b", None, KeyError, "contain"),
        ("register_parameter", "", None, KeyError, "empty"),
        ("register_parameter", 3, None, TypeError, "should be a string"),
        ("register_parameter", "fc1", None, KeyError, "already exists"),
        ("register_parameter", "p", 3, TypeError, "Parameter or None"),
        ("register_buffer", "a.b", None, KeyError, "contain"),
        ("register_buffer", "fc1", None, KeyError, "already exists"),
        ("register_buffer", "b", 3, TypeError, "Tensor or None"),
        ("add_module", "a.b", None, KeyError, "contain"),
        ("register_module", "scale", None, KeyError, "already exists"),
        ("add_module", "m", 3, TypeError, "int is not a Module subclass"),
        ("add_module", "m", nn.ReLU, TypeError, "not a Module subclass"),
    ],
)
def test_registering_nonsense(register, name, value, error, message):
    with pytest.raises(error, match=message):
        getattr(Net(), register)(name, value)


def test_non_leaf_is_no_parameter():
    w = nn.Parameter(kobai.ones(2))
    p = nn.Parameter(kobai.ones(2))
    p._node, p._requires_grad = (w * 2).grad_fn, True
    with pytest.raises(ValueError, match="non-leaf"):
        nn.Module().register_parameter("p", p)


# --- Parameter ----------------------------------------------------------------------------------------------------


def test_parameter():
    t = kobai.tensor([1.0, 2.0])
    p = nn.Parameter(t)
    assert p.requires_grad
    assert p.is_leaf
    assert p.array is t.array
    assert repr(p) == "Parameter containing:\ntensor([1., 2.], requires_grad=True)"
    assert not nn.Parameter(t, requires_grad=False).requires_grad
    assert nn.Parameter(kobai.tensor([1, 2]), requires_grad=False).dtype == kobai.int64
    with pytest.raises(RuntimeError, match="float"):
        nn.Parameter(kobai.tensor([1, 2]))
    with pytest.raises(TypeError, match=r"expected a kobai.Tensor, got list"):
        nn.Parameter([1.0])
    assert nn.Parameter().shape == (0,)
    assert type(p * 2) is kobai.Tensor
    assert type(p.detach()) is kobai.Tensor


def test_parameter_deepcopy():
    p = nn.Parameter(kobai.tensor([1.0, 2.0]), requires_grad=False)
    p.tag = "x"
    q = copy.deepcopy(p)
    assert type(q) is nn.Parameter
    assert same(p, q)
    assert q.array is not p.array
    assert not q.requires_grad
    assert q.tag == "x"
    a, b = copy.deepcopy([p, p])
    assert a is b


# --- walking ------------------------------------------------------------------------------------------------------


def test_shared_members_come_once():
    shared = nn.Linear(2, 2)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    assert [n for n, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert [n for n, _ in net.named_modules()] == ["", "0", "1"]
    assert len(list(net.children())) == 2
    every = [n for n, _ in net.named_parameters(remove_duplicate=False)]
    assert every == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(net.state_dict()) == every

    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert len(list(tied.parameters())) == 3


def test_prefix_and_recurse():
    net = Net()
    assert [n for n, _ in net.named_parameters(prefix="m")] == ["m.fc1.weight", "m.fc1.bias", "m.fc2.weight"]
    assert list(net.parameters(recurse=False)) == []
    assert len(list(net.buffers(recurse=False))) == 2
    assert [n for n, _ in net.named_modules(prefix="m")] == ["m", "m.fc1", "m.act", "m.fc2"]
    assert len(list(net.modules())) == 4


def test_get_by_path():
    net = nn.Sequential(OrderedDict(body=Net()))
    assert net.get_submodule("") is net
    assert net.get_submodule("body.fc1") is net.body.fc1
    assert net.get_parameter("body.fc1.weight") is net.body.fc1.weight
    assert net.get_buffer("body.scale") is net.body.scale
    with pytest.raises(AttributeError, match=r"Net has no submodule `fc` .*Did you mean 'fc"):
        net.get_submodule("body.fc")
    with pytest.raises(AttributeError, match="Net has no parameter `scale`"):
        net.get_parameter("body.scale")
    with pytest.raises(AttributeError, match="Linear has no buffer `weight`"):
        net.get_buffer("body.fc1.weight")
    with pytest.raises(AttributeError, match="Linear has no parameter `bias`"):
        net.get_parameter("body.fc2.bias")


# --- state --------------------------------------------------------------------------------------------------------


def test_state_dict_shares_memory():
    net = Net()
    state = net.state_dict()
    assert list(state) == ["scale", "fc1.weight", "fc1.bias", "fc2.weight"]
    assert state["fc1.weight"].array is net.fc1.weight.array
    assert not state["fc1.weight"].requires_grad
    assert net.state_dict(keep_vars=True)["fc1.weight"] is net.fc1.weight
    assert list(net.fc1.state_dict(prefix="a.")) == ["a.weight", "a.bias"]
    into = {"x": 1}
    assert net.fc2.state_dict(destination=into) is into
    assert list(into) == ["x", "weight"]


def test_load_state_dict_copies_in_place():
    a, b = Net(), Net()
    weight, array = b.fc1.weight, b.fc1.weight.array
    result = b.load_state_dict(a.state_dict())
    assert b.fc1.weight is weight
    assert weight.array is array
    assert same(a.fc1.weight, b.fc1.weight)
    assert result.missing_keys == []
    assert result.unexpected_keys == []
    assert repr(result) == str(result) == "<All keys matched successfully>"
    missing, unexpected = result
    assert missing == unexpected == []


def test_load_state_dict_casts():
    a, b = Net().double(), Net()
    b.load_state_dict(a.state_dict())
    assert b.fc1.weight.dtype == kobai.float32
    assert np.allclose(b.fc1.weight.detach().numpy(), a.fc1.weight.detach().numpy())


def test_load_state_dict_names_every_problem_and_changes_nothing():
    net = Net()
    before = copy.deepcopy(net.state_dict())
    state = net.state_dict()
    del state["scale"], state["fc1.bias"]
    state["fc1.weight"] = kobai.zeros(3, 5)
    state["fc2.weight"] = np.zeros((2, 3))
    state["extra"] = state["more"] = kobai.zeros(1)
    with pytest.raises(RuntimeError) as error:
        net.load_state_dict(state)
    text = str(error.value)
    assert text.startswith("Error(s) in loading state_dict for Net:")
    assert 'Missing key(s) in state_dict: "scale", "fc1.bias".' in text
    assert 'Unexpected key(s) in state_dict: "extra", "more".' in text
    assert "size mismatch for fc1.weight: the model expects (3, 4), the state_dict holds (3, 5)." in text
    assert "fc2.weight: expected a Tensor, got ndarray." in text
    assert all(same(before[k], v) for k, v in net.state_dict().items())


def test_load_state_dict_not_strict():
    net = Net()
    result = net.load_state_dict({"fc1.bias": kobai.ones(3), "extra": kobai.ones(1)}, strict=False)
    assert result.missing_keys == ["scale", "fc1.weight", "fc2.weight"]
    assert result.unexpected_keys == ["extra"]
    assert "missing_keys" in repr(result)
    assert same(net.fc1.bias, kobai.ones(3))
    with pytest.raises(RuntimeError, match="size mismatch"):
        net.load_state_dict({"fc1.bias": kobai.ones(4)}, strict=False)
    with pytest.raises(TypeError, match="expected a mapping, got list"):
        net.load_state_dict([])


def test_load_state_dict_assign():
    net = Net()
    net.fc1.weight.requires_grad_(False)
    state = {k: v.double() for k, v in net.state_dict().items()}
    net.load_state_dict(state, assign=True)
    assert net.fc1.weight.dtype == kobai.float64
    assert isinstance(net.fc1.weight, nn.Parameter)
    assert net.fc1.weight.array is state["fc1.weight"].array
    assert not net.fc1.weight.requires_grad
    assert net.fc2.weight.requires_grad
    assert net.scale is state["scale"]

    parameter = nn.Parameter(kobai.ones(3))
    net.load_state_dict({"fc1.bias": parameter}, assign=True, strict=False)
    assert net.fc1.bias is parameter

    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    tied.load_state_dict({k: v.clone() for k, v in tied.state_dict().items()}, assign=True)
    assert tied[1].weight is tied[0].weight


def test_loading_is_seen_by_the_tape():
    net = nn.Linear(2, 2)
    x = kobai.ones(1, 2, requires_grad=True)
    loss = net(x).sum()
    net.load_state_dict(net.state_dict())
    with pytest.raises(RuntimeError, match="in place"):
        loss.backward()


# --- modes and conversions ----------------------------------------------------------------------------------------


def test_train_eval():
    net = Net()
    assert net.eval() is net
    assert not net.fc1.training
    assert net.train() is net
    assert net.fc1.training
    with pytest.raises(ValueError, match="bool"):
        net.train("yes")


def test_requires_grad_and_zero_grad():
    net = Net()
    net(kobai.ones(2, 4)).sum().backward()
    assert net.fc1.weight.grad is not None
    net.zero_grad(set_to_none=False)
    assert same(net.fc1.weight.grad, kobai.zeros(3, 4))
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    assert not any(p.requires_grad for p in net.requires_grad_(False).parameters())
    assert all(p.requires_grad for p in net.requires_grad_().parameters())


def test_apply_visits_children_first():
    seen = []
    net = Net()
    assert net.apply(lambda m: seen.append(type(m).__name__)) is net
    assert seen == ["Linear", "ReLU", "Linear", "Net"]


def test_to_dtype():
    net = Net()
    net.register_buffer("count", kobai.tensor(3))
    weight = net.fc1.weight
    net(kobai.ones(2, 4)).sum().backward()
    assert net.double() is net
    assert net.fc1.weight is weight
    assert weight.dtype == kobai.float64
    assert weight.grad.dtype == kobai.float64
    assert net.scale.dtype == kobai.float64
    assert net.count.dtype == kobai.int64
    assert net.half().fc1.weight.dtype == kobai.float16
    assert net.float().fc1.weight.dtype == kobai.float32
    assert net.to(kobai.float64).fc1.weight.dtype == kobai.float64
    assert net.to(dtype=kobai.float32).fc1.weight.dtype == kobai.float32
    assert net.to("cpu", kobai.float64).fc1.weight.dtype == kobai.float64
    assert net.to(kobai.ones(1)).fc1.weight.dtype == kobai.float32
    assert net.to("cpu", None, True).cpu().fc1.weight is weight
    assert net.to(kobai.device("cpu"), non_blocking=True) is net


def test_to_leaves_alone_what_is_right():
    net = Net()
    arrays = [p.array for p in net.parameters()]
    net.to("cpu").float()
    assert all(p.array is a for p, a in zip(net.parameters(), arrays, strict=True))


def test_shared_buffer_stays_shared():
    a, b = nn.Module(), nn.Module()
    t = kobai.ones(2)
    a.register_buffer("t", t)
    b.register_buffer("t", t)
    net = nn.ModuleList([a, b]).double()
    assert net[0].t is net[1].t
    assert net[0].t.dtype == kobai.float64


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((kobai.int64,), TypeError, "only floating-point dtypes are accepted, got int64"),
        ((), TypeError, "expected a device, a dtype or a tensor"),
        (("cpu", "cpu"), TypeError, "got also 'cpu'"),
        (("gpu",), ValueError, "expected 'cpu'"),
    ],
)
def test_to_nonsense(args, error, message):
    with pytest.raises(error, match=message):
        Net().to(*args)


def test_cuda_without_a_device_says_so():
    if kobai.available_backends().get("cupy") == "":
        pytest.skip("there is a CUDA device here")
    for device in (None, 0, "cuda:0"):
        with pytest.raises(kobai.errors.BackendError):
            nn.Linear(2, 2).cuda(device)


def test_deepcopy():
    net = Net()
    net.fc2.weight.requires_grad_(False)
    net.tied = net.fc1
    net.register_forward_hook(lambda module, args, output: output * 0)
    twin = copy.deepcopy(net)
    assert type(twin.fc1.weight) is nn.Parameter
    assert twin.fc1.weight is not net.fc1.weight
    assert twin.tied is twin.fc1
    assert not twin.fc2.weight.requires_grad
    assert all(same(a, b) for a, b in zip(net.parameters(), twin.parameters(), strict=True))
    x = kobai.ones(2, 4)
    assert same(twin(x), kobai.zeros(2, 2))
    twin.fc1.weight.data.fill_(0.0)
    assert not same(net.fc1.weight, twin.fc1.weight)
    handle = net.register_forward_hook(lambda *a: None)
    again = copy.deepcopy(net)
    handle.remove()
    assert len(again._forward_hooks) == 2


# --- calling and hooks --------------------------------------------------------------------------------------------


def test_forward_is_required():
    with pytest.raises(NotImplementedError, match=r'Module \[Module\] is missing the required "forward" function'):
        nn.Module()(1)


def test_forward_hooks():
    m, log = Scale(), []
    first = m.register_forward_pre_hook(lambda module, args: log.append(("pre", args)))
    m.register_forward_pre_hook(lambda module, args: args[0] + 1)
    m.register_forward_hook(lambda module, args, output: log.append(("post", args, output)))
    m.register_forward_hook(lambda module, args, output: output * 10)
    y = m(kobai.tensor([1.0]))
    assert y.item() == 40.0
    assert [entry[0] for entry in log] == ["pre", "post"]
    assert log[1][1][0].item() == 2.0
    first.remove()
    first.remove()
    m(kobai.tensor([1.0]))
    assert [entry[0] for entry in log] == ["pre", "post", "post"]


def test_hooks_with_kwargs_and_prepend():
    m, log = Scale(), []
    m.register_forward_pre_hook(lambda module, args, kwargs: (args, {"bias": kwargs["bias"] + 1}), with_kwargs=True)
    m.register_forward_hook(lambda module, args, kwargs, out: log.append(kwargs["bias"]), with_kwargs=True)
    m.register_forward_hook(lambda module, args, out: log.append("first"), prepend=True)
    assert m(kobai.tensor([1.0]), bias=3.0).item() == 6.0
    assert log == ["first", 4.0]
    m.register_forward_pre_hook(lambda module, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match=r"must return None or \(args, kwargs\)"):
        m(kobai.tensor([1.0]), bias=3.0)
    with pytest.raises(TypeError, match="callable"):
        m.register_forward_hook(3)
    with pytest.raises(TypeError):  # what we do not have is refused, not ignored
        m.register_forward_hook(print, always_call=True)


def test_hook_may_remove_itself():
    m, count = Scale(), []
    handle = m.register_forward_hook(lambda *a: (count.append(1), handle.remove())[1])
    m(kobai.ones(1))
    m(kobai.ones(1))
    assert count == [1]
    with m.register_forward_hook(lambda *a: count.append(2)):
        m(kobai.ones(1))
    m(kobai.ones(1))
    assert count == [1, 2]


def test_full_backward_hook():
    m, log = Scale(3.0), []
    m.register_full_backward_pre_hook(lambda module, go: log.append(("pre", go[0].item())))
    m.register_full_backward_hook(lambda module, gi, go: log.append(("post", gi[0].item(), go[0].item())))
    x = kobai.tensor([2.0], requires_grad=True)
    (5 * m(x)).backward()
    assert log == [("pre", 5.0), ("post", 15.0, 5.0)]
    assert x.grad.item() == 15.0
    assert m.w.grad.item() == 10.0


def test_backward_hooks_replace_gradients():
    m = Scale(3.0)
    m.register_full_backward_pre_hook(lambda module, go: (go[0] * 2,))
    m.register_full_backward_hook(lambda module, gi, go: gi[0] + go[0])
    x = kobai.tensor([2.0], requires_grad=True)
    m(x).backward()
    assert m.w.grad.item() == 4.0  # 2 · x
    assert x.grad.item() == 8.0  # 2 · w + 2

    m.register_full_backward_hook(lambda module, gi, go: (None, None))
    with pytest.raises(RuntimeError, match=r"Scale: full backward hook returned 2 gradient\(s\), expected 1"):
        m(x).backward()


def test_backward_hook_without_input_gradient():
    m, log = Scale(3.0), []
    m.register_full_backward_hook(lambda module, gi, go: log.append((gi, go[0].item())))
    m(kobai.tensor([2.0])).backward()
    assert log == [((None,), 1.0)]
    with kobai.no_grad():
        m(kobai.tensor([2.0]))
    assert len(log) == 1


def test_backward_hook_with_several_inputs_and_outputs():
    class Cross(nn.Module):
        def forward(self, x, k, y):
            return x * y, "label", [x + y][0] * k

    m, log = Cross(), []
    m.register_full_backward_hook(lambda module, gi, go: log.append((gi, go)))
    x, y = kobai.tensor([2.0], requires_grad=True), kobai.tensor([3.0], requires_grad=True)
    a, label, b = m(x, 10.0, y)
    assert label == "label"
    (a + 2 * b).backward(retain_graph=True)
    ((gi, go),) = log
    assert [None if g is None else g.item() for g in gi] == [23.0, None, 22.0]
    assert [None if g is None else g.item() for g in go] == [1.0, None, 2.0]
    assert x.grad.item() == 23.0
    assert y.grad.item() == 22.0

    (a * 1).backward()  # the other output gets no gradient this time
    assert [None if g is None else g.item() for g in log[1][1]] == [1.0, None, None]
    assert x.grad.item() == 26.0


def test_backward_hook_wants_tensors_out():
    class Dict(nn.Module):
        def forward(self, x):
            return {"y": x}

    m = Dict()
    m.register_full_backward_hook(lambda *a: None)
    with pytest.raises(TypeError, match="Dict: backward hooks need a Tensor"):
        m(kobai.ones(1, requires_grad=True))


def test_in_place_after_a_backward_hook():
    m = Scale(3.0)
    m.register_full_backward_hook(lambda *a: None)
    x = kobai.tensor([2.0], requires_grad=True)
    y = m(x)
    y += 1
    y *= 2
    y.backward()
    assert y.item() == 14.0
    assert x.grad.item() == 6.0


def test_module_is_collected():
    """A call leaves nothing behind that would keep the module alive."""
    m = Scale()
    m.register_full_backward_hook(lambda *a: None)
    m(kobai.ones(1, requires_grad=True)).sum().backward()
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None


def test_call_costs_little():
    class Pass(nn.Module):
        def forward(self, x):
            return x

    m = Pass()
    n = 20000
    extra = min(timeit.repeat(lambda: m(1), number=n)) - min(timeit.repeat(lambda: m.forward(1), number=n))
    assert extra / n < 2e-6  # about 0.2 µs; the bound leaves room for a busy machine


# --- looks --------------------------------------------------------------------------------------------------------


def test_repr():
    class Top(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU()))
            self.none = None

        def extra_repr(self):
            return "a=1\nb=2"

    assert repr(Top()) == (
        "Top(\n"
        "  a=1\n"
        "  b=2\n"
        "  (net): Sequential(\n"
        "    (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "    (1): Sequential(\n"
        "      (0): ReLU()\n"
        "    )\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Module()) == "Module()"


def test_asking_for_an_attribute_that_is_not_there_seeks_no_similar_names(monkeypatch):
    """``hasattr`` is asked at every registration: with a search each, a net of a hundred layers took a second to build."""
    searches = []
    monkeypatch.setattr("kobai.errors.nearest", lambda *args: searches.append(args) or "")
    model = nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)])
    assert not hasattr(model, "nothing")
    assert getattr(kobai.ones(1), "nothing", None) is None
    assert not searches
