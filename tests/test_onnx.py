"""Models as files of ONNX: what onnxruntime computes of them, what comes back, and what is refused."""

from __future__ import annotations

import io

import numpy as np
import pytest

import kobai
from kobai import nn, onnx
from kobai.errors import CheckpointError
from kobai.nn import functional as F
from nn.test_layers import LAYERS

onnxruntime = pytest.importorskip("onnxruntime", reason="runs the files that are examined")
package = pytest.importorskip("onnx")


def flat(values):
    if isinstance(values, (tuple, list)):
        return [v for part in values for v in flat(part)]
    return [] if values is None else [values]


def written(model, inputs, **options):
    file = io.BytesIO()
    onnx.export(model, tuple(inputs), file, **options)
    return file.getvalue()


def examine(model, inputs, dynamic=((0, "batch"),), opset=None):
    """Export with dynamic axes, run at the size of the example, at another and at one, read back, run that too."""
    names = [f"in{i}" for i in range(len(inputs))]
    axes = {name: dict(dynamic) for name in names}
    content = written(model, inputs, input_names=names, dynamic_axes=axes, opset_version=opset)
    session = onnxruntime.InferenceSession(content)
    again = onnx.load(io.BytesIO(content))
    model.eval()
    for times in (1, 3, 0):
        given = [grown(x, dynamic, times) for x in inputs]
        with kobai.no_grad():
            wanted = flat(model(*given))
        answers = session.run(None, {name: x.numpy() for name, x in zip(names, given, strict=True)})
        for want, answer, back in zip(wanted, answers, flat(again(*given)), strict=True):
            assert (want.shape, want.numpy().dtype) == (answer.shape, answer.dtype)
            np.testing.assert_allclose(answer, want.numpy(), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(back.detach().numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
            assert back.dtype == want.dtype
    return again


def grown(x, dynamic, times):
    """``x`` with its dynamic axes as long ``times`` over; 0: of one element."""
    for axis, _ in dynamic:
        x = kobai.cat([x] * times, axis) if times else x.narrow(axis, 0, 1)
    return x


def checked(model, inputs, **options):
    """:func:`examine`, and the parameters that come back."""
    again = examine(model, inputs, **options)
    ours, theirs = dict(model.named_parameters()), dict(again.named_parameters())
    assert theirs.keys() <= ours.keys()
    for name, parameter in theirs.items():
        assert np.array_equal(parameter.detach().numpy(), ours[name].detach().numpy())
    assert set(again.state_dict()) <= set(model.state_dict())
    return again


# --- every layer ------------------------------------------------------------------------------------------------------

FIXED = {"BatchNorm1d, no statistics": "it refuses a batch of one, in eval mode too"}
"""Layers whose batch is left as it is -> why."""


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_runs_in_onnxruntime_at_any_batch_size_and_comes_back(name):
    layer = LAYERS[name]
    dynamic = () if name in FIXED else ((0, "batch"),)
    checked(layer.make(), layer.inputs(), dynamic=dynamic)


LEFT_OUT = {
    "Loss": "those in LOSSES are examined there; a part of training, not of the model",
    "Lazy": "the layer that it becomes is in the table",
    "MaxUnpool": "scatters to places that depend on values, which the error names",
    "DataParallel": "calls the model that it holds",
    "Module ModuleList ModuleDict ParameterList ParameterDict RNNBase RNNCellBase": "has no forward of its own",
}
"""Names, or parts of them, of modules that are not examined -> why."""


def test_every_layer_is_examined_or_left_out_for_a_reason():
    examined = {type(layer.make()).__name__ for layer in LAYERS.values()}
    examined.update(type(module).__name__ for make, _ in MODELS.values() for module in make().modules())
    modules = {name for name, value in vars(nn).items() if isinstance(value, type) and issubclass(value, nn.Module)}
    left = {name for name in modules - examined for key in LEFT_OUT if name in key.split() or key in name}
    assert modules - examined == left


def test_unpooling_names_what_is_lacking():
    class Unpool(nn.Module):
        def forward(self, x):
            return F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2)

    with pytest.raises(onnx.OnnxExporterError, match="has no form in ONNX"):
        written(Unpool(), [R(2, 3, 4)])


R = kobai.randn


class Block(nn.Module):
    """Two convolutions and a shortcut, in place where ResNets are."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(2))
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += x
        return self.relu(y)


class Sequences(nn.Module):
    """A recurrent layer in both directions, and a classifier of its last state."""

    def __init__(self, kind):
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 5, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    """Causal attention with shapes taken from the input."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


class Language(nn.Module):
    """Embeddings of tokens and places, attention, logits."""

    def __init__(self):
        super().__init__()
        self.token, self.place = nn.Embedding(10, 8), nn.Embedding(40, 8)
        self.attention, self.norm, self.head = Attention(), nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, index):
        x = self.token(index) + self.place(kobai.arange(index.shape[1]))
        return self.head(x + self.attention(self.norm(x)))


def encoder(**options):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Dropout(), nn.Linear(7, 3))


def cnn():
    features = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding="same"), nn.GELU())
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5))


MODELS = {
    "mlp": (mlp, [(4, 3, 4)]),
    "cnn": (cnn, [(3, 1, 10, 10)]),
    "residual block": (Block, [(2, 4, 5, 5)]),
    **{kind: (lambda kind=kind: Sequences(kind), [(2, 6, 3)]) for kind in ("RNN", "LSTM", "GRU")},
    "LSTM with its states": (lambda: nn.LSTM(3, 5, batch_first=True), [(2, 6, 3)]),
    "LSTM, projected": (lambda: nn.LSTM(3, 5, proj_size=2, batch_first=True), [(2, 6, 3)]),
    "RNNCell": (lambda: nn.RNNCell(3, 5, nonlinearity="relu"), [(2, 3)]),
    "LSTMCell": (lambda: nn.LSTMCell(3, 5), [(2, 3)]),
    "GRUCell": (lambda: nn.GRUCell(3, 5, bias=False), [(2, 3)]),
    "decoder": (
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 1),
        [(3, 5, 8), (3, 4, 8)],
    ),
    **{
        kind + " alone": (lambda kind=kind: getattr(nn, kind)(3, 5, batch_first=True), [(2, 6, 3)])
        for kind in ("RNN", "GRU")
    },
    "encoder": (lambda: encoder(activation="gelu"), [(3, 5, 8)]),
    "encoder, norm first": (lambda: encoder(norm_first=True), [(3, 5, 8)]),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 16, batch_first=True), [(3, 5, 8), (3, 4, 8)]),
    "multi-head attention": (lambda: nn.MultiheadAttention(8, 2, batch_first=True), [(3, 5, 8)] * 3),
    "attention": (Attention, [(3, 5, 8)]),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_run_in_onnxruntime_at_any_batch_size_and_come_back(name):
    make, shapes = MODELS[name]
    checked(make(), [R(*shape) for shape in shapes])


class WithLoss(nn.Module):
    """A model that gives its loss."""

    def __init__(self, loss):
        super().__init__()
        self.body, self.loss = nn.Linear(4, 3), loss

    def forward(self, x, target):
        return self.loss(self.body(x), target)


LOSSES = {
    "CrossEntropyLoss": (
        lambda: nn.CrossEntropyLoss(kobai.tensor([1.0, 2.0, 0.5]), label_smoothing=0.1),
        [0, 2, -100, 1],
    ),
    "NLLLoss": (lambda: nn.NLLLoss(), [0, 2, 1, 1]),
    "MSELoss": (lambda: nn.MSELoss(), None),
    "L1Loss": (lambda: nn.L1Loss(reduction="sum"), None),
    "HuberLoss": (lambda: nn.HuberLoss(delta=0.5), None),
    "SmoothL1Loss": (lambda: nn.SmoothL1Loss(), None),
    "BCEWithLogitsLoss": (lambda: nn.BCEWithLogitsLoss(pos_weight=kobai.tensor([1.0, 2.0, 3.0])), None),
    "KLDivLoss": (lambda: nn.KLDivLoss(reduction="batchmean"), None),
    "PoissonNLLLoss": (lambda: nn.PoissonNLLLoss(), None),
    "SoftMarginLoss": (lambda: nn.SoftMarginLoss(), None),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_model_may_give_its_loss(name):
    make, target = LOSSES[name]
    checked(WithLoss(make()), [R(4, 4), kobai.rand(4, 3) if target is None else kobai.tensor(target)])


@pytest.mark.parametrize("opset", [18, 20, 23])
def test_every_opset_that_is_offered_gives_the_same(opset):
    checked(Block(), [R(2, 4, 5, 5)], opset=opset)
    checked(encoder(), [R(3, 5, 8)], opset=opset)


def test_batch_and_length_may_both_be_dynamic():
    axes = ((0, "batch"), (1, "time"))
    checked(encoder(), [R(3, 5, 8)], dynamic=axes)
    checked(Sequences("LSTM"), [R(2, 6, 3)], dynamic=axes)
    checked(Language(), [kobai.randint(0, 10, (3, 6))], dynamic=axes)


class Masked(nn.Module):
    """Attention that leaves out what is padded, and that looks back only."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x, padded):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.attention(x, x, x, key_padding_mask=padded, attn_mask=mask, need_weights=False)[0]


def test_masks_may_be_inputs_and_made_of_sizes():
    padded = kobai.tensor([[False, False, True, True, True], [False] * 5, [False, True, False, False, True]])
    checked(Masked(), [R(3, 5, 8), padded], dynamic=((0, "batch"), (1, "time")))


def test_an_image_of_any_size():
    layers = (
        nn.Conv2d(3, 4, 3, 2, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )
    model, x = nn.Sequential(*layers).eval(), R(2, 3, 12, 12)
    content = written(model, [x], dynamic_axes={"input": {0: "batch", 2: "height", 3: "width"}})
    x = R(5, 3, 21, 16)
    (answer,) = onnxruntime.InferenceSession(content).run(None, {"input": x.numpy()})
    np.testing.assert_allclose(answer, model(x).detach().numpy(), rtol=1e-5, atol=1e-5)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_initializers_are_the_state_dict_and_names_are_those_asked_for():
    model = mlp()
    content = written(model, [R(4, 12)], input_names=["x"], output_names=["y"], dynamic_axes={"x": [0], "y": [0]})
    graph = package.load_model_from_string(content).graph
    held = {entry.name: package.numpy_helper.to_array(entry) for entry in graph.initializer}
    state = {name: x for name, x in model.state_dict().items() if "num_batches" not in name}
    assert held.keys() == state.keys()
    assert all(np.array_equal(held[name], x.numpy()) for name, x in state.items())
    assert [entry.name for entry in (*graph.input, *graph.output)] == ["x", "y"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "x_dim_0"
    assert graph.output[0].type.tensor_type.shape.dim[0].dim_param == "x_dim_0"
    assert graph.output[0].type.tensor_type.shape.dim[1].dim_value == 3


def test_inputs_are_named_after_forward_and_a_path_is_written(tmp_path):
    onnx.export(Language(), kobai.tensor([[1, 2]]), tmp_path / "model.onnx")
    again = onnx.load(tmp_path / "model.onnx")
    assert (again.input_names, again.output_names) == (("index",), ("output",))
    with pytest.raises(RuntimeError, match=r"expected index of shape \(1, 2\), got \(1, 3\)"):
        again(kobai.tensor([[1, 2, 3]]))
    with pytest.raises(TypeError, match="expected inputs index"):
        again()


def test_a_model_is_left_as_it_was():
    model = mlp()
    model[3].eval()
    before = {name: x.numpy().copy() for name, x in model.state_dict().items()}
    written(model, [R(4, 12)])
    assert [m.training for m in model.modules()] == [True, True, True, True, False, True, True]
    assert all(np.array_equal(before[name], x.numpy()) for name, x in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_double_precision_stays_double():
    checked(mlp().double(), [R(4, 12, dtype=kobai.float64)])


def test_what_comes_back_trains():
    model = checked(mlp(), [R(4, 12)]).train()
    optimizer = kobai.optim.Adam(model.parameters(), lr=0.01)
    x, y = R(16, 12), kobai.randint(0, 3, (16,))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert not kobai.equal(model.state_dict()["2.running_mean"], kobai.zeros(7))


def test_a_number_from_a_buffer_and_tied_weights():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4, bias=False)
            self.second = nn.Linear(4, 4, bias=False)
            self.second.weight = self.first.weight
            self.register_buffer("scale", kobai.tensor(3.0))

        def forward(self, x):
            return self.second(self.first(x)) * self.scale.item() / x.shape[-1] + self.scale

    again = checked(Tied(), [R(2, 4)])
    assert [name for name, _ in again.named_parameters()] == ["first.weight"]
    assert [name for name, _ in again.named_buffers() if name == "scale"] == ["scale"]


# --- what is refused --------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Whatever a test wants, in a layer called ``inner``."""

    def __init__(self, function):
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = function

    def forward(self, x):
        return self.inner(x)


def halves(x):
    x[:, :1] = 2 * x[:, 1:2]
    return x


def behind(x):
    x = x * 1
    y = x.view(-1)
    y += 1
    return x + 1


REFUSED = {
    "a primitive": (lambda x: kobai.lgamma(x), r"lgamma has no form .* layer inner \(Identity\).*other operations"),
    "a factorisation": (lambda x: kobai.linalg.qr(x)[0], "has no form .* layer inner"),
    "a function of NumPy": (lambda x: x.sort(1).values, "has no form .* layer inner"),
    "an if": (lambda x: x if x.sum() > 0 else -x, r"depends on the inputs in layer inner .*where\(\)"),
    "item": (lambda x: x * x.max().item(), r"item\(\).* in layer inner"),
    "a size that depends on values": (lambda x: x[x > 0], "in layer inner"),
    "a part written": (halves, "in layer inner"),
    "a view written": (behind, "changed through another one in layer inner"),
    "random numbers": (lambda x: x + kobai.randn(3, 4), "random numbers in layer inner"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_form_names_itself_and_the_layer(what):
    function, message = REFUSED[what]
    with pytest.raises(onnx.OnnxExporterError, match=message):
        written(Calls(function), [R(3, 4)])
    assert not onnx.is_in_onnx_export()


DYNAMIC = {
    "a loop over the batch": (lambda x: sum(x[i] for i in range(len(x))), "no graph serves both"),
    "a mean by hand": (lambda x: x.sum(0) * (1 / x.shape[0]), "no form"),
    "a table of one size": (lambda x: x + kobai.tensor([[0.5, 2.0, -1.0, 7.0]] * x.shape[0]).flip(1), None),
    "a size that is no product": (
        lambda x: x.reshape(x.shape[0] // 2 + x.shape[0] % 2, -1),
        "no graph|no form|run with",
    ),
    "a condition on the size": (lambda x: x if x.shape[0] == 3 else x + 1, "no graph serves both"),
}


@pytest.mark.parametrize("what", DYNAMIC)
def test_no_size_of_an_example_stays_in_a_graph(what):
    function, message = DYNAMIC[what]
    written(Calls(function), [R(3, 4)])
    if message is None:
        return
    with pytest.raises(onnx.OnnxExporterError, match=message):
        written(Calls(function), [R(3, 4)], dynamic_axes={"x": {0: "batch"}})


WRONG = {
    "no module": ({"model": lambda x: x}, TypeError, "expected model to be a Module, got function"),
    "opset": ({"opset_version": 9}, ValueError, "expected opset_version from 18 to 23, got 9"),
    "training": ({"training": onnx.TrainingMode.TRAINING}, ValueError, "eval mode"),
    "without parameters": ({"export_params": False}, NotImplementedError, "expected export_params=True, .* got False"),
    "no argument": ({"dynamic_axis": {}}, TypeError, "unexpected keyword argument 'dynamic_axis'"),
    "input names": ({"input_names": ["a", "b"]}, ValueError, "expected 1 different input_names"),
    "output names": ({"output_names": ["a", "b"]}, ValueError, "expected 1 output_names"),
    "an unknown name": (
        {"dynamic_axes": {"y": [0]}, "output_names": ["z"]},
        ValueError,
        "'y', which is no input: input",
    ),
    "an unknown axis": ({"dynamic_axes": {"input": [2]}}, ValueError, "'input' has 2 dimensions, got 2"),
    "a lazy layer": ({"model": nn.LazyLinear(2)}, ValueError, "call the model once"),
    "no file": ({"f": None}, TypeError, "expected f"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments_are_refused(what):
    options, error, message = WRONG[what]
    given = {"model": nn.Linear(4, 2), "args": R(3, 4), "f": io.BytesIO(), **options}
    with pytest.raises(error, match=message):
        onnx.export(**given)


def test_pytorchs_usual_arguments_are_taken():
    written(
        nn.Linear(4, 2), [R(3, 4)], export_params=True, do_constant_folding=True, verbose=False, dynamo=False,
        training=onnx.TrainingMode.EVAL,
    )  # fmt: skip


def test_files_that_cannot_be_read_say_why(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"no graph")
    with pytest.raises(CheckpointError, match=r"no\.onnx is no valid file of ONNX"):
        onnx.load(tmp_path / "no.onnx")
    helper = package.helper
    info = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Selu", ["x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    with pytest.raises(CheckpointError, match="operators that Kobai does not read: Selu"):
        onnx.load(io.BytesIO(model.SerializeToString()))


def test_every_operator_that_is_written_is_read():
    """And every primitive in the table is one that there is."""
    from kobai.core.primitive import REGISTRY
    from kobai.onnx.forms import FORMS

    assert {key for key in FORMS if not key.startswith("numpy.")} <= REGISTRY.keys()
