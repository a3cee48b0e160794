"""Module: attributes, parameters, walking, calling and hooks, looks."""

import copy
import gc
import importlib
import timeit
import weakref
from collections import OrderedDict

import pytest
from small_modules import Net, Scale, same

import kobai
from kobai import nn

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


def test_a_hook_that_is_always_called():
    class Fails(nn.Module):
        def forward(self, x):
            if x.item() < 0:
                raise ValueError("negative")
            return x

    m, log = Fails(), []
    m.register_forward_hook(lambda module, args, out: log.append(out), always_call=True)
    m.register_forward_hook(lambda module, args, out: log.append("ordinary"))
    m(kobai.tensor(1.0))
    assert len(log) == 2
    with pytest.raises(ValueError, match="negative"):
        m(kobai.tensor(-1.0))
    assert log[2:] == [None]


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


def every_hook(calls):
    """Hooks of every module that note which they are and of what."""
    from kobai.nn.modules import module as path

    def noting(kind):
        return lambda m, *rest: calls.append((kind, m._get_name(), len(rest)))

    return [
        path.register_module_forward_pre_hook(noting("pre")),
        path.register_module_forward_hook(noting("after"), with_kwargs=True),
        path.register_module_full_backward_pre_hook(noting("backward pre")),
        path.register_module_full_backward_hook(noting("backward")),
    ]


def test_hooks_of_every_module():
    calls = []
    model = nn.Sequential(nn.Linear(2, 1), nn.Tanh())
    model[1].register_forward_hook(lambda m, args, output: calls.append(("own", m._get_name(), 2)))
    handles = every_hook(calls)
    try:
        model(kobai.ones(1, 2, requires_grad=True)).sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    assert calls[:6] == [
        ("pre", "Sequential", 1),
        ("pre", "Linear", 1),
        ("after", "Linear", 3),
        ("pre", "Tanh", 1),
        ("after", "Tanh", 3),
        ("own", "Tanh", 2),
    ]
    assert [(kind, name) for kind, name, _ in calls[7:]] == [
        ("backward pre", "Sequential"),
        ("backward pre", "Tanh"),
        ("backward", "Tanh"),
        ("backward pre", "Linear"),
        ("backward", "Linear"),
        ("backward", "Sequential"),
    ]
    n = len(calls)
    model(kobai.ones(1, 2))
    assert [kind for kind, _, _ in calls[n:]] == ["own"]


def test_hooks_of_every_module_change_what_goes_in_and_out():
    from kobai.nn.hooks import register_module_forward_hook, register_module_forward_pre_hook

    with register_module_forward_pre_hook(lambda m, args: (args[0] + 1,)):
        assert nn.Identity()(kobai.ones(1)).item() == 2
    with register_module_forward_hook(lambda m, args, output: output * 3):
        assert nn.Identity()(kobai.ones(1)).item() == 3
    with pytest.raises(TypeError, match="must be callable"):
        register_module_forward_hook(None)


def test_a_hook_of_every_module_that_is_always_called():
    from kobai.nn.hooks import register_module_forward_hook

    seen = []
    with (
        register_module_forward_hook(lambda m, args, output: seen.append(output), always_call=True),
        pytest.raises(RuntimeError),
    ):
        nn.Linear(2, 3)(kobai.ones(1, 5))
    assert seen == [None]


def test_a_captured_step_sees_hooks_of_every_module():
    from kobai.nn.hooks import register_module_forward_hook

    model, x = nn.Linear(2, 1), kobai.ones(1, 2)
    step = kobai.capture(kobai.no_grad()(lambda x: model(x).sum()))
    plain = [step(x).item() for _ in range(4)][-1]
    with register_module_forward_hook(lambda m, args, output: output * 2):
        assert step(x).item() == pytest.approx(2 * plain)
    assert step(x).item() == pytest.approx(plain)


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
    n = 100  # 0.1 ms a run: on a busy machine too, one of many is not interrupted
    called, forward = (min(timeit.repeat(f, number=n, repeat=500)) for f in (lambda: m(1), lambda: m.forward(1)))
    assert (called - forward) / n < 2e-6  # about 0.2 µs


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


def test_types_places_and_submodules():
    m = nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.BatchNorm1d(3)))
    assert m.type(kobai.float64)[0].weight.dtype == kobai.float64
    weight = m[0].weight
    assert m.to_empty(device="cpu")[0].weight is weight
    assert m[1][0].running_mean.shape == (3,)
    assert m.share_memory() is m
    m.set_submodule("1.0", nn.ReLU())
    assert isinstance(m[1][0], nn.ReLU)
    m.set_submodule("1.new", nn.Tanh())
    assert isinstance(m[1].new, nn.Tanh)
    with pytest.raises(AttributeError, match="no submodule `other`"):
        m.set_submodule("1.other", nn.Tanh(), strict=True)
    with pytest.raises(ValueError, match="name of a submodule"):
        m.set_submodule("", nn.Tanh())


# --- what subclasses of layers build on -------------------------------------------------------------------------------


def test_type_converts_every_tensor_by_a_name_too():
    m = nn.BatchNorm1d(2)
    assert m.type("torch.DoubleTensor").weight.dtype == kobai.float64
    assert m.num_batches_tracked.dtype == kobai.float64
    assert m.type(kobai.Tensor).weight.dtype == kobai.float32


@pytest.mark.parametrize("options", [{}, {"device": None}, {"dtype": None}, {"non_blocking": True}])
def test_to_nothing_changes_nothing(options):
    m = nn.Linear(2, 2)
    weight = m.weight
    assert m.to(**options) is m
    assert m.weight is weight
    assert m.weight.dtype == kobai.float32


def test_a_convolution_that_makes_its_weights_in_each_call():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            w = self.weight
            mean, std = w.mean((1, 2, 3), keepdim=True), w.std((1, 2, 3), keepdim=True)
            return self._conv_forward(x, (w - mean) / (std + 1e-5), self.bias)

    layer = Standardised(3, 4, 3, padding=1, padding_mode="reflect")
    assert layer(kobai.randn(2, 3, 5, 5)).shape == (2, 4, 5, 5)
    assert (layer.transposed, layer.output_padding) == (False, (0, 0))
    assert nn.ConvTranspose2d(2, 2, 2, stride=2, output_padding=1).transposed
    assert nn.ConvTranspose2d(2, 2, 2, stride=2, output_padding=1).output_padding == (1, 1)


def test_a_batch_norm_with_a_forward_of_its_own_checks_its_input():
    class Ghost(nn.BatchNorm2d):
        def forward(self, x):
            self._check_input_dim(x)
            return kobai.cat([super(Ghost, self).forward(part) for part in x.chunk(2)])

    assert Ghost(3)(kobai.randn(4, 3, 2, 2)).shape == (4, 3, 2, 2)
    with pytest.raises(ValueError, match=r"Ghost: expected input \(N, 3, H, W\)"):
        Ghost(3)(kobai.randn(4, 2, 2, 2))


def test_transformer_layers_with_one_block_replaced():
    class NoAttention(nn.TransformerEncoderLayer):
        def _sa_block(self, x, attn_mask, key_padding_mask, is_causal=False):
            return x * 0

    class Gated(nn.TransformerDecoderLayer):
        def _ff_block(self, x):
            return super()._ff_block(x).sigmoid()

        def _mha_block(self, x, mem, attn_mask, key_padding_mask, is_causal=False):
            assert mem.shape == (3, 7, 8)
            return super()._mha_block(x, mem, attn_mask, key_padding_mask, is_causal)

    x = kobai.randn(3, 5, 8)
    layer = NoAttention(8, 2, 16, dropout=0.0, batch_first=True)
    wanted = layer.norm1(x)
    wanted = layer.norm2(wanted + layer.linear2(layer.linear1(wanted).relu()))
    kobai.testing.assert_close(layer(x), wanted)
    assert Gated(8, 2, 16, batch_first=True)(x, kobai.randn(3, 7, 8)).shape == (3, 5, 8)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "call",
    [
        "p('cpu')",
        "p(t.float64)",
        "p('cpu', t.float16, True)",
        "p(t.ones(1, dtype=t.float64), True)",
        "p(device=t.device('cpu'), dtype=t.float32)",
        "p(memory_format=t.channels_last)",
    ],
)
def test_arguments_of_to_as_pytorch_gives_them_to_programs(call):
    results = []
    for t in (kobai, importlib.import_module("torch")):
        device, *rest = eval(call, {"t": t, "p": t._C._nn._parse_to})
        results.append([device and device.type, *(str(part).partition(".")[2] or part for part in rest)])
    assert results[0] == results[1]


def test_a_compiled_module_is_itself():
    layer = nn.Linear(2, 3)
    before = layer(kobai.ones(2))
    layer.compile(mode="reduce-overhead")
    assert layer(kobai.ones(2)).equal(before)
    assert layer._call_impl(kobai.ones(2)).equal(before)


@pytest.mark.parametrize(
    "around", [nn.Sequential, lambda part: nn.ModuleList([nn.Sequential(part)])], ids=["one", "two"]
)
def test_a_part_decides_itself_how_it_is_trained_and_moved(around):
    """A frozen backbone stays in evaluation mode; a tensor that is no buffer moves with its module."""

    class Frozen(nn.BatchNorm1d):
        def __init__(self):
            super().__init__(2)
            self.table = kobai.ones(3)

        def train(self, mode=True):
            return super().train(False)

        def _apply(self, fn):
            super()._apply(fn)
            self.table = fn(self.table)
            return self

    part = Frozen()
    model = around(part).train()
    assert model.training
    assert not part.training
    model.double()
    assert part.table.dtype == part.weight.dtype == part.running_mean.dtype == kobai.float64


def test_a_shared_buffer_stays_shared_when_it_moves():
    a, b = nn.Module(), nn.Module()
    a.register_buffer("table", kobai.ones(3))
    b.register_buffer("table", a.table)
    nn.ModuleList([a, nn.Sequential(b)]).double()
    assert a.table is b.table
    assert a.table.dtype == kobai.float64
