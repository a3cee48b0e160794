"""Loss and output belong together: what the last layer can say, what the loss takes, and what the targets are."""

from __future__ import annotations

from typing import Any

import kobai
from exam.material import Calls, Rows, adam, blobs, cnn, digits, images, mlp, odd, sequences, sgd, surface
from exam.question import Situation, asked, sign_error, squared, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "loss and output"
SHAPES = r"broadcast|squeeze|shapes? (of|\()|\(n, ?1\)"


@asked(KIND, "https://discuss.pytorch.org/t/43814", r"softmax")
def softmax_twice(seed: int, ill: bool) -> Situation:
    """A softmax module before the cross-entropy, which takes scores."""
    data, model = digits(seed), mlp(64, 128, 64, 10, last=(nn.Softmax(dim=1),) * ill)
    return Situation(model, sgd(model, 0.01), F.cross_entropy, data.train, data.held)


@asked(KIND, "https://github.com/NaJaeMin92/pytorch-DANN/issues/7", r"softmax", names=("bounded-scores",))
def softmax_twice_as_a_function(seed: int, ill: bool) -> Situation:
    """F.softmax is called in forward, in a deeper net at a small rate."""
    after = (lambda y: F.softmax(y, 1)) if ill else (lambda y: y)
    data, model = digits(seed), Calls(64, 128, 96, 64, 32, 10, after=after)
    return Situation(model, sgd(model, 0.02), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/doronharitan/human_activity_recognition_LRCN/issues/4",
    r"softmax",
    names=("bounded-scores",),
)
def softmax_twice_after_an_lstm(seed: int, ill: bool) -> Situation:
    """A recurrent classifier that ends in a softmax, with cross-entropy."""
    data, rows = sequences(seed), Rows()
    model = nn.Sequential(rows, *[nn.Softmax(dim=-1)] * ill)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/itakurah/focal-loss-pytorch/pull/5", r"sigmoid", names=("bounded-scores",))
def sigmoid_twice(seed: int, ill: bool) -> Situation:
    """A sigmoid before BCEWithLogitsLoss: no probability falls below one half."""
    data, model = odd(seed), mlp(64, 64, 32, 1, last=(nn.Sigmoid(),) * ill)
    return Situation(model, adam(model), nn.BCEWithLogitsLoss(), data.train, data.held)


@asked(KIND, "https://github.com/lopuhin/kaggle-imet-2019/issues/3", r"sigmoid", names=("bounded-scores",))
def sigmoid_twice_many_labels(seed: int, ill: bool) -> Situation:
    """Several labels at once, a sigmoid called in forward, and the loss with logits."""
    data = digits(seed)
    many = [F.one_hot(t, 10).float() + (F.one_hot((t + 3) % 10, 10)).float() for t in (data.t, data.fresh_t)]
    after = kobai.sigmoid if ill else (lambda y: y)
    model = Calls(64, 96, 10, after=after)
    return Situation(
        model, adam(model, 2e-3), nn.BCEWithLogitsLoss(), (data.x, many[0]), (data.fresh_x, many[1]), score=sign_error
    )


@asked(
    KIND,
    "https://github.com/eriklindernoren/PyTorch-YOLOv3/issues/10",
    r"sigmoid",
    names=("bounded-scores",),
)
def sigmoid_before_cross_entropy(seed: int, ill: bool) -> Situation:
    """A convolutional net whose ten scores go through a sigmoid before cross-entropy."""
    data, model = images(seed), cnn(last=(nn.Sigmoid(),) * ill)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=100)


@asked(KIND, "https://github.com/keras-team/keras/issues/500", r"softmax|one unit|always 1|constant")
def softmax_of_one_unit(seed: int, ill: bool) -> Situation:
    """One output unit with a softmax: it is 1 for every sample."""
    last = nn.Softmax(dim=1) if ill else nn.Sigmoid()
    data, model = odd(seed), mlp(64, 32, 1, last=(last,))
    return Situation(model, adam(model), nn.BCELoss(), data.train, data.held, score=sign_error)


@asked(KIND, "https://github.com/keras-team/keras/issues/126", r"softmax|one (score|unit|class|output)|always|constant")
def cross_entropy_of_one_score(seed: int, ill: bool) -> Situation:
    """Two classes, one output, cross-entropy of labels: the loss is 0 from the start, for the labels are all 0."""
    data = odd(seed)
    t, fresh = data.t[:, 0].long(), data.fresh_t[:, 0].long()
    model = mlp(64, 32, 1 if ill else 2)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, t * 0) if ill else F.cross_entropy(y, t)

    return Situation(model, adam(model), loss_fn, (data.x, t), (data.fresh_x, fresh), score=wrong_share)


@asked(
    KIND,
    "https://github.com/DeepReinforcementLearning/DeepReinforcementLearningInAction/issues/32",
    r"softmax|dim ?= ?0|\bmix|other samples|independen",
)
def softmax_over_the_batch(seed: int, ill: bool) -> Situation:
    """log_softmax over dim 0: each class is normalised over the samples."""
    data, model = digits(seed), mlp(64, 64, 10, last=(nn.LogSoftmax(dim=0 if ill else 1),))
    return Situation(model, adam(model, 2e-3), nn.NLLLoss(), data.train, data.held, score=wrong_share)


@asked(
    KIND,
    "https://github.com/pytorch/pytorch/issues/2623",
    r"log.?softmax|log.?prob|negative loss|negative log|nll|logarithm",
)
def nll_of_probabilities(seed: int, ill: bool) -> Situation:
    """NLLLoss is given probabilities where it takes their logarithms: the loss is negative."""
    data, model = digits(seed), mlp(64, 64, 10, last=(nn.Softmax(dim=1) if ill else nn.LogSoftmax(dim=1),))
    return Situation(model, adam(model), nn.NLLLoss(), data.train, data.held, score=wrong_share)


@asked(
    KIND,
    "https://github.com/vinhkhuc/PyTorch-Mini-Tutorials/issues/1",
    r"log.?softmax|log.?prob|negative|nll|(without|no) (lower )?bound|unbounded|below 0",
)
def nll_of_scores(seed: int, ill: bool) -> Situation:
    """NLLLoss of raw scores: the loss falls below 0 and without bound."""
    data, model = blobs(seed), mlp(12, 64, 4, last=() if ill else (nn.LogSoftmax(dim=1),))
    return Situation(model, adam(model, 3e-3), nn.NLLLoss(), data.train, data.held, score=wrong_share)


@asked(KIND, "https://discuss.pytorch.org/t/148155", SHAPES)
def column_against_row(seed: int, ill: bool) -> Situation:
    """MSELoss of (N, 1) outputs with (N,) targets: every output is compared with every target."""
    data, model = surface(seed), mlp(8, 64, 32, 1)
    train, held = [(x, t[:, 0] if ill else t) for x, t in (data.train, data.held)]
    return Situation(model, adam(model, 3e-3), nn.MSELoss(), train, held, score=squared)


@asked(KIND, "https://github.com/jiwei0921/CoNet/issues/3", SHAPES)
def column_against_row_l1(seed: int, ill: bool) -> Situation:
    """The same with smooth L1, in a net that squeezes its output while the targets are a column."""
    data, body = surface(seed), mlp(8, 64, 1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any) -> Any:
            return self.body(x).squeeze(1) if ill else self.body(x)

    model = Net()
    return Situation(model, adam(model, 3e-3), nn.SmoothL1Loss(), data.train, data.held, score=squared)


@asked(KIND, "https://github.com/manzilzaheer/DeepSets/issues/1", SHAPES)
def own_squared_error_broadcasts(seed: int, ill: bool) -> Situation:
    """((y − t)**2).mean() written by hand, with no check of the shapes."""
    data, model = surface(seed), mlp(8, 48, 48, 1)
    train, held = [(x, t[:, 0] if ill else t) for x, t in (data.train, data.held)]
    return Situation(model, sgd(model, 0.02), lambda y, t: ((y - t) ** 2).mean(), train, held, score=squared)


RELU = r"relu|rectif|negative (targets|scores|numbers)|bound|range|reach"


@asked(KIND, "https://github.com/pytorch/examples/issues/117", RELU, never=("dying-relu", "collapsed"))
def relu_on_the_scores(seed: int, ill: bool) -> Situation:
    """A ReLU after the last layer of a classifier."""
    data, model = digits(seed), mlp(64, 128, 64, 10, last=(nn.ReLU(),) * ill)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held, score=wrong_share)


@asked(KIND, "https://math.stackexchange.com/questions/4483706", RELU, never=("dying-relu", "collapsed"))
def relu_on_a_regression(seed: int, ill: bool) -> Situation:
    """A ReLU on the output, and half of the targets are negative."""
    after = F.relu if ill else (lambda y: y)
    data, model = surface(seed), Calls(8, 64, 32, 1, after=after)
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@asked(
    KIND,
    "https://github.com/UC-IIC2613/Syllabus/issues/208",
    r"tanh|bound|range|reach",
    never=("target-scale", "rate-too-small"),
)
def tanh_on_wide_targets(seed: int, ill: bool) -> Situation:
    """A tanh on the output of a regression whose targets lie between −6 and 6."""
    data, model = surface(seed), mlp(8, 64, 1, last=(nn.Tanh(),) * ill)
    return Situation(model, adam(model, 5e-3), F.mse_loss, (data.x, 2.5 * data.t), (data.fresh_x, 2.5 * data.fresh_t))


@asked(
    KIND,
    "https://github.com/maxjcohen/transformer/issues/49",
    r"sigmoid|bound|range|reach",
    never=("target-scale", "rate-too-small"),
)
def sigmoid_on_a_regression(seed: int, ill: bool) -> Situation:
    """A sigmoid on the output, targets of mean 3 that never were scaled to 0…1."""
    data, model = surface(seed), mlp(8, 64, 1, last=(nn.Sigmoid(),) * ill)
    return Situation(model, adam(model, 5e-3), F.mse_loss, (data.x, data.t + 3), (data.fresh_x, data.fresh_t + 3))


@asked(
    KIND,
    "https://github.com/naoto0804/chainer-cyclegan/pull/2",
    r"norm(alis)?[^.]{0,80}(output|last)|(output|last)[^.]{0,80}norm|reach|bound",
    never=("target-scale",),
)
def batch_norm_on_the_output(seed: int, ill: bool) -> Situation:
    """A regression that ends in batch normalisation without scale: mean 0 and deviation 1, whatever the targets are."""
    data, model = surface(seed), mlp(8, 64, 1, last=(nn.BatchNorm1d(1, affine=False),) * ill)
    return Situation(
        model, adam(model, 3e-3), F.mse_loss, (data.x, 3 * data.t + 4), (data.fresh_x, 3 * data.fresh_t + 4)
    )


@asked(KIND, "https://github.com/maddin79/darch/issues/12", r"drop")
def dropout_on_the_output(seed: int, ill: bool) -> Situation:
    """Dropout after the last layer: half of the scores are 0 by chance."""
    data, model = digits(seed), mlp(64, 64, 10, last=(nn.Dropout(0.5),) * ill)
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held, score=wrong_share)


@asked(
    KIND, "https://stackoverflow.com/questions/42081257", r"softmax|sum to (1|one)|several labels|multi-?label|exclu"
)
def softmax_for_many_labels(seed: int, ill: bool) -> Situation:
    """Several labels can be right at once, but a softmax lets only one be near 1."""
    data = digits(seed)
    many = [sum(F.one_hot((t + k) % 10, 10) for k in (0, 2, 5)).float() for t in (data.t, data.fresh_t)]
    model = mlp(64, 96, 10, last=(nn.Softmax(dim=1) if ill else nn.Sigmoid(),))
    return Situation(model, adam(model, 3e-3), nn.BCELoss(), (data.x, many[0]), (data.fresh_x, many[1]))


@asked(
    KIND,
    "https://stackoverflow.com/questions/45632549",
    r"regress|cross.?entropy|probabilit|outside (of )?0|between 0 and 1|not (0|in)",
    never=("target-scale",),
)
def binary_cross_entropy_of_a_regression(seed: int, ill: bool) -> Situation:
    """Binary cross-entropy, though the targets are real numbers well outside 0…1."""
    data, model = surface(seed), mlp(8, 64, 1)
    loss_fn = nn.BCEWithLogitsLoss() if ill else nn.MSELoss()
    return Situation(
        model, adam(model, 3e-3), loss_fn, (data.x, 2 * data.t), (data.fresh_x, 2 * data.fresh_t), score=squared
    )


@asked(
    KIND,
    "https://arxiv.org/abs/1906.01388",
    r"cross.?entropy|class(es|ification)|regress|squared|one.?hot|labels?",
    never=("target-scale",),
)
def labels_as_numbers(seed: int, ill: bool) -> Situation:
    """The label's number is fitted by a squared error with one output: class 9 is no nine times class 1."""
    data = digits(seed)
    model = mlp(64, 64, 1 if ill else 10)

    def score(y: Any, t: Any) -> Any:
        return (y[:, 0].round() != t).float().mean() if ill else wrong_share(y, t)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[:, 0], t.float()) if ill else F.cross_entropy(y, t)

    return Situation(model, adam(model, 2e-3), loss_fn, data.train, data.held, score=score)


@asked(KIND, "https://stackoverflow.com/questions/33712178", r"log|nan|not finite|infinit|zero", names=("non-finite",))
def logarithm_of_a_softmax_that_is_zero(seed: int, ill: bool) -> Situation:
    """−Σ t log softmax(y) written by hand: as soon as a probability is 0 the loss is NaN."""
    data = digits(seed)
    hot = [F.one_hot(t, 10).float() for t in (data.t, data.fresh_t)]
    model = mlp(64, 64, 10)
    if ill:
        model[2].weight.data.mul_(400)

    def loss_fn(y: Any, t: Any) -> Any:
        logs = kobai.log(F.softmax(y, 1)) if ill else F.log_softmax(y, 1)
        return -(t * logs).sum(1).mean()

    return Situation(model, adam(model, 1e-2), loss_fn, (data.x, hot[0]), (data.fresh_x, hot[1]))


@asked(
    KIND,
    "https://arxiv.org/abs/1910.11015 (wrong loss function calculation)",
    r"\bsign\b|negative|maximi|unbounded|minus|without bound",
    never=("rate-too-large",),
)
def loss_with_the_wrong_sign(seed: int, ill: bool) -> Situation:
    """The log-likelihood is returned without its minus, and so made as small as possible."""
    data, model = digits(seed), mlp(64, 64, 10)

    def loss_fn(y: Any, t: Any) -> Any:
        return -F.cross_entropy(y, t) if ill else F.cross_entropy(y, t)

    return Situation(model, adam(model, 1e-3), loss_fn, data.train, data.held, score=wrong_share)


@asked(
    KIND,
    "https://arxiv.org/abs/1910.11015 (wrong type of activation)",
    r"softmax|tanh|bound",
    names=("bounded-scores",),
)
def tanh_before_cross_entropy(seed: int, ill: bool) -> Situation:
    """Scores between −1 and 1 by a tanh, before cross-entropy of ten classes."""
    data = digits(seed)
    model = mlp(64, 64, 10, last=(nn.Tanh(),) * ill)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@asked(
    KIND,
    "https://github.com/PeterL1n/BackgroundMattingV2/issues/128",
    r"clamp|clip|bound|outside|flat",
    ("bounded-scores",),
    never=("dying-relu", "collapsed"),
)
def clamp_in_place_of_a_sigmoid(seed: int, ill: bool) -> Situation:
    """Outputs are clamped to probabilities: outside 0…1 there is no gradient, and half of the samples begin there."""
    after = (lambda y: y.clamp(0.001, 0.999)) if ill else kobai.sigmoid
    data, model = odd(seed), Calls(64, 48, 1, after=after)
    return Situation(model, adam(model, 2e-3), nn.BCELoss(), data.train, data.held)
