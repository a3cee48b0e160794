"""Capacity: what the net can say at all; and signals that die on their way through it."""

from __future__ import annotations

from typing import Any

import kobai
from exam.material import Calls, Rows, adam, blobs, circles, cnn, digits, images, mlp, sequences, sgd, surface
from exam.question import Situation, asked
from kobai import nn
from kobai.nn import functional as F, init

KIND = "capacity"
LINEAR = r"no activation|without (an )?activation|is linear|linear (net|model|map|function)|no non-?linear"
NARROW = r"narrow|bottleneck|one unit|single unit|width|wider|few units|rank"


@asked(KIND, "https://github.com/aymericdamien/TensorFlow-Examples/issues/270", LINEAR)
def no_activation_on_rings(seed: int, ill: bool) -> Situation:
    """Three dense layers without an activation between them, on two rings."""
    data, model = circles(seed), mlp(2, 64, 64, 2, act=nn.Identity if ill else nn.ReLU)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/aymericdamien/TensorFlow-Examples/issues/207", LINEAR)
def no_activation_in_forward(seed: int, ill: bool) -> Situation:
    """forward chains the layers and forgets the activations, in a regression with products."""
    data, model = surface(seed), Calls(8, 64, 64, 1, act=(lambda x: x) if ill else F.relu)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(KIND, "https://github.com/wyhsirius/LIA/issues/11", LINEAR)
def activation_turned_off_by_an_option(seed: int, ill: bool) -> Situation:
    """A block takes activation=None by default, and six of them are stacked on clusters that no plane parts."""

    class Block(nn.Module):
        def __init__(self, n_in: int, n_out: int, activation: Any = None) -> None:
            super().__init__()
            self.dense, self.activation = nn.Linear(n_in, n_out), activation

        def forward(self, x: Any) -> Any:
            y = self.dense(x)
            return y if self.activation is None else self.activation(y)

    data, act = circles(seed), None if ill else F.relu
    model = nn.Sequential(Block(2, 32, act), Block(32, 32, act), Block(32, 32, act), nn.Linear(32, 2))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://arxiv.org/abs/1910.11015 (suboptimal number of neurons)", NARROW, never=("dying-relu",))
def bottleneck_of_one_unit(seed: int, ill: bool) -> Situation:
    """A layer of one unit between 128 and 64."""
    data, model = digits(seed), mlp(64, 128, 1 if ill else 48, 64, 10)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://stats.stackexchange.com/questions/181 (number of hidden units)", NARROW, never=("dying-relu",))
def one_hidden_unit(seed: int, ill: bool) -> Situation:
    """Ten classes through a single hidden unit with a tanh."""
    data, model = digits(seed), mlp(64, 1 if ill else 32, 10, act=nn.Tanh)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://stats.stackexchange.com/questions/352036", NARROW + r"|pool|lost|average", ("cannot-fit",))
def pooled_to_one_number(seed: int, ill: bool) -> Situation:
    """Global pooling stands before the convolutions: one number is left of each image."""
    data = images(seed)
    if ill:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 10))
    else:
        model = cnn()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/Gofinge/CheXpert_Baseline_PyTorch/issues/5", r"drop")
def keep_probability_as_p(seed: int, ill: bool) -> Situation:
    """Dropout is given the probability to keep, where it takes that to drop: 0.95."""
    p = 0.95 if ill else 0.05
    data = digits(seed)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Dropout(p), nn.Linear(128, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 10)
    )
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/bonlime/keras-deeplab-v3-plus/issues/4", r"drop")
def dropout_of_nine_tenths_called(seed: int, ill: bool) -> Situation:
    """F.dropout(h, 0.9) of feature maps and of the dense layer, called in forward."""
    features = cnn()[:6]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.hidden, self.head = features, nn.Linear(64, 32), nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            p = 0.95 if ill else 0.1
            h = F.dropout(self.features(x).flatten(1), p, self.training)
            return self.head(F.dropout(F.relu(self.hidden(h)), p, self.training))

    data, model = images(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/piergiaj/pytorch-i3d/issues/58", r"drop")
def dropout_in_a_regression(seed: int, ill: bool) -> Situation:
    """Dropout of 0.9 on the inputs and on the hidden units of a regression."""
    p = 0.9 if ill else 0.0
    data = surface(seed)
    model = nn.Sequential(nn.Dropout(p), nn.Linear(8, 64), nn.ReLU(), nn.Dropout(p), nn.Linear(64, 1))
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(
    KIND, "https://www.deeplearningbook.org/contents/mlp.html (6.1)", LINEAR + "|plane|straight|linear", ("cannot-fit",)
)
def logistic_regression_of_rings(seed: int, ill: bool) -> Situation:
    """One linear layer, for classes that no line can part."""
    data, model = circles(seed), nn.Sequential(nn.Linear(2, 2)) if ill else mlp(2, 32, 2)
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


WEIGHTS = "weights and signal"


@asked(WEIGHTS, "https://cs231n.github.io/neural-networks-2/ (pitfall: all zero initialization)", "", ("symmetric",))
def weights_of_zero(seed: int, ill: bool) -> Situation:
    """All weights begin at zero."""
    data, model = digits(seed), mlp(64, 64, 10, act=nn.Tanh)
    for parameter in model.parameters() if ill else ():
        init.zeros_(parameter)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held)


@asked(
    WEIGHTS,
    "https://www.deeplearningbook.org/contents/optimization.html (8.4)",
    "",
    ("symmetric", "exploding-activations"),
)
def weights_of_one(seed: int, ill: bool) -> Situation:
    """Every weight begins at one: all units of a layer are the same, and the signal explodes."""
    data, model = blobs(seed), mlp(12, 32, 32, 4)
    for parameter in model.parameters() if ill else ():
        init.ones_(parameter)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@asked(WEIGHTS, "http://neuralnetworksanddeeplearning.com/chap5.html", "", ("vanishing-gradient", "collapsed"))
def ten_layers_of_sigmoids(seed: int, ill: bool) -> Situation:
    """Ten hidden layers of sigmoids: the gradient shrinks by a quarter or more at each."""
    data, act = digits(seed), nn.Sigmoid if ill else nn.ReLU
    model = mlp(64, *[48] * 10, 10, act=act)
    for layer in model[::2]:
        (init.xavier_normal_ if ill else init.kaiming_normal_)(layer.weight)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@asked(WEIGHTS, "https://www.deeplearning.ai/ai-notes/initialization/", "", ("collapsed", "vanishing-gradient"))
def weights_far_too_small(seed: int, ill: bool) -> Situation:
    """Six tanh layers with weights of deviation 0.01."""
    data, model = digits(seed), mlp(64, *[64] * 6, 10, act=nn.Tanh)
    for layer in model[::2]:
        init.normal_(layer.weight, std=0.01) if ill else init.xavier_normal_(layer.weight)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held)


@asked(
    WEIGHTS,
    "https://arxiv.org/abs/1502.01852 (section 2.2)",
    "",
    ("exploding-activations", "exploding-gradient", "saturated"),
    never=("rate-too-large",),
)
def weights_far_too_large(seed: int, ill: bool) -> Situation:
    """Eight ReLU layers with weights from a normal distribution of deviation 1."""
    data, model = digits(seed), mlp(64, *[64] * 8, 10)
    for layer in model[::2]:
        init.normal_(layer.weight, std=1.0) if ill else init.kaiming_normal_(layer.weight)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@asked(WEIGHTS, "https://proceedings.mlr.press/v9/glorot10a.html", "", ("saturated",))
def saturated_by_the_weights(seed: int, ill: bool) -> Situation:
    """tanh units with weights of deviation 1 from 64 inputs: nearly all are at ±1."""
    data, model = digits(seed), mlp(64, 64, 64, 10, act=nn.Tanh)
    for layer in model[::2]:
        init.normal_(layer.weight, std=2.0) if ill else init.xavier_normal_(layer.weight)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@asked(WEIGHTS, "https://datascience.stackexchange.com/questions/5706", "", ("dying-relu", "no-signal"))
def dead_rectifiers(seed: int, ill: bool) -> Situation:
    """Large negative biases: most ReLUs are 0 for every sample."""
    data, model = digits(seed), mlp(64, 96, 48, 10)
    if ill:
        init.constant_(model[0].bias, -3.0)
        init.constant_(model[2].bias, -3.0)
    return Situation(model, sgd(model, 0.03), F.cross_entropy, data.train, data.held)


@asked(
    WEIGHTS,
    "https://arxiv.org/abs/1211.5063 (exploding gradients of recurrent nets)",
    "",
    ("exploding-gradient", "exploding-activations", "saturated"),
)
def recurrent_weights_too_large(seed: int, ill: bool) -> Situation:
    """A plain recurrent net whose recurrent weights are 8 times as large as usual."""
    data, model = sequences(seed), Rows("RNN", nonlinearity="relu")
    for name, parameter in model.named_parameters():
        if "weight_hh" in name and ill:
            parameter.data.mul_(8)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, steps=80)


@asked(
    WEIGHTS,
    "https://karpathy.github.io/2019/04/25/recipe/ (verify loss at init)",
    "",
    ("exploding-activations", "exploding-gradient"),
)
def first_loss_of_a_hundred(seed: int, ill: bool) -> Situation:
    """The last layer's weights are 60 times as large as they should: the first loss is far above log 10."""
    data, model = digits(seed), mlp(64, 64, 10)
    if ill:
        model[2].weight.data.mul_(60)
    return Situation(model, sgd(model, 0.03), F.cross_entropy, data.train, data.held)


@asked(WEIGHTS, "https://arxiv.org/abs/1505.00387 (section 1)", "", ("collapsed", "vanishing-gradient"))
def product_of_gates(seed: int, ill: bool) -> Situation:
    """Six sigmoid gates in a row are multiplied into the signal, which each of them halves."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gates = nn.ModuleList([nn.Linear(32, 32) for _ in range(12)])
            self.first, self.head = nn.Linear(12, 32), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = kobai.tanh(self.first(x))
            for gate in self.gates:
                h = h * kobai.sigmoid(gate(h)) if ill else h + kobai.tanh(gate(h)) / 12
            return self.head(h)

    data, model = blobs(seed), Net()
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held)
