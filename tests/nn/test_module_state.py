"""Module: state, modes and conversions."""

import copy

import numpy as np
import pytest
from small_modules import Net, same

import kobai
from kobai import nn

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
    assert net.bfloat16().fc1.weight.dtype == kobai.bfloat16
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


# --- modules that have a say in it ------------------------------------------------------------------------------------


class Old(nn.Module):
    """Renames what an older version called ``w``, as models with a history do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(kobai.ones(2))
        self.steps = 3

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        if prefix + "w" in state_dict:
            state_dict[prefix + "weight"] = state_dict.pop(prefix + "w")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def get_extra_state(self):
        return {"steps": self.steps}

    def set_extra_state(self, state):
        self.steps = state["steps"]


def test_a_module_renames_keys_and_keeps_extra_state():
    model = nn.Sequential(nn.Linear(2, 2), Old())
    state = model.state_dict()
    assert list(state) == ["0.weight", "0.bias", "1.weight", "1._extra_state"]
    state["1.w"] = state.pop("1.weight") + 1
    state["1._extra_state"] = {"steps": 7}
    given = list(state)
    assert str(model.load_state_dict(state)) == "<All keys matched successfully>"
    assert list(state) == given
    assert model[1].steps == 7
    assert model[1].weight.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match=r'Missing key\(s\) in state_dict: "1._extra_state"'):
        model.load_state_dict({k: v for k, v in state.items() if k != "1._extra_state"})


def test_a_module_that_takes_its_state_itself():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.items = []

        def _save_to_state_dict(self, destination, prefix, keep_vars):
            super()._save_to_state_dict(destination, prefix, keep_vars)
            for i, item in enumerate(self.items):
                destination[f"{prefix}item{i}"] = item

        def _load_from_state_dict(self, state_dict, prefix, *rest):
            self.items = [value for key, value in state_dict.items() if key.startswith(f"{prefix}item")]

    model = nn.Sequential(Own(), nn.Linear(1, 1))
    model[0].items = [kobai.ones(1), kobai.zeros(1)]
    other = nn.Sequential(Own(), nn.Linear(1, 1))
    other.load_state_dict(model.state_dict())
    assert len(other[0].items) == 2
    with pytest.raises(RuntimeError, match=r'Unexpected key.*"1.more"'):
        other.load_state_dict({**model.state_dict(), "1.more": kobai.ones(1)})


def test_hooks_of_saving_and_loading():
    model, log = nn.Sequential(nn.Linear(2, 1)), []
    model[0].register_state_dict_pre_hook(lambda module, prefix, keep_vars: log.append(prefix))
    handle = model._register_state_dict_hook(
        lambda module, state, prefix, metadata: {f"net.{k}": v for k, v in state.items()}
    )
    state = model.state_dict()
    assert log == ["0."]
    assert list(state) == ["net.0.weight", "net.0.bias"]

    def strip(module, state_dict, prefix, *rest):
        for key in list(state_dict):
            state_dict[key.removeprefix("net.")] = state_dict.pop(key)

    model.register_load_state_dict_pre_hook(strip)
    model.load_state_dict(state)
    handle.remove()
    model._register_load_state_dict_pre_hook(lambda state_dict, prefix, *rest: state_dict.pop("0.bias"))
    with pytest.raises(RuntimeError, match=r'Missing key.*"0.bias"'):
        model.load_state_dict(state)
    model.register_load_state_dict_post_hook(lambda module, keys: keys.missing_keys.clear())
    model.load_state_dict(state)


def test_a_state_dict_collected_by_position():
    model, state = nn.Linear(2, 1), {}
    assert model.state_dict(state, "inner.") is state
    assert list(state) == ["inner.weight", "inner.bias"]


def test_versions_of_layouts_are_noted_and_handed_to_who_loads():
    seen = []

    class Renamed(nn.Module):
        _version = 3

        def __init__(self):
            super().__init__()
            self.new = nn.Parameter(kobai.zeros(2))

        def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
            seen.append(version := local_metadata.get("version"))
            if version is None or version < 3:
                state_dict[f"{prefix}new"] = state_dict.pop(f"{prefix}old")
            super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    model = nn.Sequential(Renamed(), nn.BatchNorm1d(2))
    state = model.state_dict()
    assert state._metadata == {"": {"version": 1}, "0": {"version": 3}, "1": {"version": 2}}
    model.load_state_dict(state)
    state["0.old"] = state.pop("0.new") + 5
    state._metadata["0"]["version"] = 2
    model.load_state_dict(state)
    model.load_state_dict(dict(state))
    assert seen == [3, 2, None]
    assert model[0].new.tolist() == [5, 5]


def test_buffers_that_are_assigned():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.kept = nn.Buffer(kobai.ones(2))
            self.passing = nn.Buffer(kobai.ones(2, dtype=kobai.int64), persistent=False)
            self.weight = nn.Parameter(kobai.ones(1))

    net = Net()
    assert [name for name, _ in net.named_buffers()] == ["kept", "passing"]
    assert sorted(net.state_dict()) == ["kept", "weight"]
    assert isinstance(net.kept, nn.Buffer)
    assert not net.kept.requires_grad
    net.kept = kobai.zeros(3)
    assert dict(net.named_buffers())["kept"].shape == (3,)
    net.kept = nn.Buffer(kobai.zeros(1), persistent=False)
    assert list(copy.deepcopy(net).double().state_dict()) == ["weight"]
    with pytest.raises(TypeError, match=r"cannot assign .* as parameter 'weight'"):
        net.weight = nn.Buffer(kobai.zeros(1))
    with pytest.raises(TypeError, match=r"Buffer: expected a kobai.Tensor, got list"):
        nn.Buffer([1.0])
    with pytest.raises(AttributeError, match="assign buffer 'early'"):
        nn.Module.__new__(nn.Module).early = nn.Buffer(kobai.zeros(1))
