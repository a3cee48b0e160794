"""The data: scales, labels, order, copies, and what the validation data have that the training data have not."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.material import adam, blobs, cnn, digits, images, mlp, odd, sequences, sgd, surface, table
from exam.question import Situation, asked, rng_of, wrong_share
from kobai import nn
from kobai.nn import functional as F

KIND = "data"
UNRELATED = r"unrelated|nothing to do|chance|neighbou?r|labels? [^.]{0,40}(do not|don't|random|shuffl)"
ORDER = r"shuffl|in order of|sorted"
VALIDATION = r"validation|held.?out"


@asked(KIND, "https://stats.stackexchange.com/questions/352036", UNRELATED)
def inputs_and_labels_shuffled_apart(seed: int, ill: bool) -> Situation:
    """Inputs and labels are shuffled by two different permutations: the labels have nothing to do with the inputs."""
    data, model = digits(seed), mlp(64, 96, 10)
    order = kobai.randperm(len(data.t))
    return Situation(model, adam(model, 1e-3), F.cross_entropy, (data.x, data.t[order] if ill else data.t), data.held)


@asked(KIND, "https://arxiv.org/abs/1611.03530 (random labels)", UNRELATED)
def random_labels_of_images(seed: int, ill: bool) -> Situation:
    """A convolutional net on images whose labels were drawn at random."""
    data, model, rng = images(seed), cnn(), rng_of(seed)
    t = kobai.from_numpy(rng.integers(0, 10, len(data.t))) if ill else data.t
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (data.x, t), data.held, steps=100)


@asked(KIND, "https://blog.slavv.com/37-reasons-why-your-neural-network-is-not-working-4020854bd607 (3)", UNRELATED)
def targets_of_another_table(seed: int, ill: bool) -> Situation:
    """The targets of a regression were joined by the wrong key."""
    data, model = surface(seed), mlp(8, 64, 1)
    t = data.t.flip(0) if ill else data.t
    return Situation(model, adam(model, 3e-3), F.mse_loss, (data.x, t), data.held)


@asked(KIND, "https://github.com/keras-team/keras/issues/8346", ORDER, ("unshuffled",))
def sorted_by_class(seed: int, ill: bool) -> Situation:
    """The samples lie in folders by class and are read one folder after the other."""
    data, model = digits(seed), mlp(64, 64, 10)
    order = data.t.argsort() if ill else kobai.arange(len(data.t))
    x, t = data.x[order], data.t[order]
    shown = (x[80:336], t[80:336])
    return Situation(model, sgd(model), F.cross_entropy, (x, t), data.held, shuffle=not ill, shown=shown)


@asked(
    KIND,
    "https://github.com/Project-MONAI/tutorials/issues/122",
    ORDER + "|one class|same label|one target",
    ("unshuffled", "no-signal"),
)
def one_class_in_the_batch(seed: int, ill: bool) -> Situation:
    """All samples of the batch come from one folder."""
    data, model = images(seed), cnn()
    order = data.t.argsort() if ill else kobai.arange(len(data.t))
    x, t = data.x[order], data.t[order]
    return Situation(
        model, adam(model), F.cross_entropy, (x, t), data.held, batch=48, shuffle=not ill, shown=(x[:48], t[:48])
    )


@asked(
    KIND,
    "https://github.com/emadeldeen24/AttnSleep/issues/18",
    r"rare|imbalanc|major|class weight|weight=|most frequent",
)
def one_rare_class(seed: int, ill: bool) -> Situation:
    """One sample in thirty is of the class that matters; the net always says the other."""
    data = odd(seed)
    keep = _thinned(data.t[:, 0], 0.03 if ill else 1.0)
    x, t = data.x[keep], data.t[keep]
    model = mlp(64, 48, 1)
    return Situation(model, adam(model, 1e-3), nn.BCEWithLogitsLoss(), (x, t), data.held)


@asked(
    KIND, "https://github.com/keras-team/keras/issues/4246", r"rare|imbalanc|major|class weight|weight=|most frequent"
)
def one_class_is_nearly_all(seed: int, ill: bool) -> Situation:
    """Nineteen in twenty images are of one class, the rest is spread over nine."""
    data, model = digits(seed), mlp(64, 64, 10)
    rng = rng_of(seed)
    t = data.t.numpy()
    other = np.flatnonzero(t != 0)
    most = np.concatenate([rng.choice(np.flatnonzero(t == 0), 950), rng.choice(other, 50, replace=False)])
    rows = kobai.from_numpy(rng.permutation(most)) if ill else kobai.arange(1000)
    return Situation(model, adam(model), F.cross_entropy, (data.x[rows], data.t[rows]), data.held)


@asked(KIND, "https://github.com/tensorflow/tensorflow/issues/32899", "", ("input-scale",))
def raw_pixels(seed: int, ill: bool) -> Situation:
    """Pixels from 0 to 255 at a usual rate."""
    data, model = digits(seed, raw=True), mlp(64, 128, 10)
    scale = 255 if ill else 1
    train, held = (data.x * scale, data.t), (data.fresh_x * scale, data.fresh_t)
    return Situation(model, sgd(model, 0.1, 0), F.cross_entropy, train, held)


@asked(KIND, "https://github.com/BrainJS/brain.js/issues/278", "", ("input-scale",))
def one_feature_in_thousands(seed: int, ill: bool) -> Situation:
    """A column of a table is in grams, where all others are of size one."""
    data, model = surface(seed), mlp(8, 48, 1)
    scale = np.ones(8, np.float32)
    scale[5] = 5000 if ill else 1
    train, held = (data.x * kobai.from_numpy(scale), data.t), (data.fresh_x * kobai.from_numpy(scale), data.fresh_t)
    return Situation(model, adam(model, 3e-3), F.mse_loss, train, held)


@asked(KIND, "https://github.com/keras-team/keras/issues/6914", "", ("input-scale",))
def divided_by_255_twice(seed: int, ill: bool) -> Situation:
    """The loader had already divided by 255: the inputs are below 1/255."""
    data, model = images(seed), cnn()
    factor = 1 / 255**2 if ill else 1.0
    train, held = (data.x * factor, data.t), (data.fresh_x * factor, data.fresh_t)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, train, held, steps=100)


@asked(
    KIND,
    "https://scikit-learn.org/stable/modules/neural_networks_supervised.html (tips on practical use)",
    "",
    ("input-scale",),
)
def table_as_it_is(seed: int, ill: bool) -> Situation:
    """The thirty measurements of the breast-cancer table, from 0.001 to 4000, are not standardised."""
    data = table("breast_cancer", seed)
    mean, std = (data.x.mean(0), data.x.std(0)) if not ill else (0.0, 1.0)
    model = mlp(30, 32, 2)
    train, held = ((data.x - mean) / std, data.t), ((data.fresh_x - mean) / std, data.fresh_t)
    return Situation(model, adam(model, 1e-3), F.cross_entropy, train, held)


@asked(
    KIND,
    "https://blog.slavv.com/37-reasons-why-your-neural-network-is-not-working-4020854bd607 (1)",
    "",
    ("no-signal",),
)
def the_same_image_again_and_again(seed: int, ill: bool) -> Situation:
    """A bug of the loader gives one image for every index."""
    data, model = images(seed), cnn()
    x = data.x[:1].repeat(len(data.x), 1, 1, 1) if ill else data.x
    return Situation(model, adam(model), F.cross_entropy, (x, data.t), data.held, steps=60)


@asked(KIND, "https://github.com/circleAhn/TESLA-tf/issues/1", "", ("non-finite",))
def missing_values(seed: int, ill: bool) -> Situation:
    """A table with missing values, which are NaN."""
    data, model = surface(seed), mlp(8, 48, 1)
    x = data.x.clone()
    if ill:
        x[3::17, 2] = float("nan")
    return Situation(model, adam(model), F.mse_loss, (x, data.t), data.held)


@asked(KIND, "https://github.com/pytorch/pytorch/issues/15666", "", ("wrong-labels",))
def labels_from_one(seed: int, ill: bool) -> Situation:
    """Labels from 1 to 10 for ten scores."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(model, adam(model), F.cross_entropy, (data.x, data.t + ill), data.held)


@asked(KIND, "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9", "", ("target-scale",))
def prices_as_targets(seed: int, ill: bool) -> Situation:
    """House prices, some hundred thousands, are fitted by a squared error as they are."""
    data, model = surface(seed), mlp(8, 64, 1)
    a, b = (1e5, 3e5) if ill else (1.0, 0.0)
    return Situation(
        model, adam(model, 3e-3), F.mse_loss, (data.x, a * data.t + b), (data.fresh_x, a * data.fresh_t + b)
    )


@asked(KIND, "https://github.com/stefyste/RIAWELC/issues/2", r"duplicat|same samples|copies|twice|leak")
def validation_is_part_of_training(seed: int, ill: bool) -> Situation:
    """All images of the validation set are in the training set too."""
    data, model = digits(seed), mlp(64, 64, 10)
    return Situation(
        model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, epochs=6,
        validation=(data.x[:300], data.t[:300]) if ill else data.held,
    )  # fmt: skip


@asked(KIND, "https://github.com/elcronos/COVID-19/issues/51", r"duplicat|same samples|copies|twice|leak")
def oversampled_before_the_split(seed: int, ill: bool) -> Situation:
    """The samples of one class were copied three times, and then the data were split: copies lie on both sides."""
    data, model = blobs(seed), mlp(12, 64, 4)
    rng = rng_of(seed)
    rows = np.arange(1000)
    if ill:
        rows = np.concatenate([rows[:500], np.repeat(np.flatnonzero(data.t.numpy()[:500] == 0), 3)])
    rows = rng.permutation(rows)
    parts = [(data.x[part], data.t[part]) for part in (kobai.from_numpy(rows[200:]), kobai.from_numpy(rows[:200]))]
    return Situation(model, adam(model, 3e-3), F.cross_entropy, parts[0], data.held, validation=parts[1])


@asked(KIND, "https://github.com/JeasunLok/ResNet-pytorch/issues/1", VALIDATION)
def validation_not_standardised(seed: int, ill: bool) -> Situation:
    """The training data are standardised, the validation data are raw."""
    data, model = digits(seed), mlp(64, 64, 10)
    validation = (60 * data.fresh_x + 75, data.fresh_t) if ill else data.held
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, epochs=6, validation=validation)


@asked(KIND, "https://github.com/Reza-Safdari/SimSiam-91.9-top1-acc-on-CIFAR10/issues/4", VALIDATION)
def validation_standardised_by_its_own_rule(seed: int, ill: bool) -> Situation:
    """Validation images are inverted and have another range: the loader of another library."""
    data, model = images(seed), cnn()
    validation = (1.5 - 2 * data.fresh_x, data.fresh_t) if ill else data.held
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, validation=validation)


@asked(KIND, "https://github.com/PolymathicAI/the_well/issues/68", VALIDATION)
def validation_of_a_regression_not_scaled(seed: int, ill: bool) -> Situation:
    """Inputs of a regression are scaled in training only."""
    data, model = surface(seed), mlp(8, 64, 1)
    validation = (30 * data.fresh_x + 10, data.fresh_t) if ill else data.held
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held, epochs=8, validation=validation)


@asked(KIND, "https://github.com/keras-team/keras/issues/4298", VALIDATION + "|" + ORDER)
def validation_of_classes_never_trained(seed: int, ill: bool) -> Situation:
    """The last fifth of sorted data is held back: its classes are in no training batch."""
    data, model = digits(seed), mlp(64, 64, 10)
    order = data.t.argsort() if ill else kobai.arange(len(data.t))
    first, last = order[:960][kobai.randperm(960)], order[960:]
    train, held = (data.x[first], data.t[first]), (data.x[last], data.t[last])
    return Situation(model, adam(model, 3e-3), F.cross_entropy, train, held, validation=held)


@asked(KIND, "https://github.com/mlpack/examples/pull/213", VALIDATION + "|label")
def validation_labels_in_another_order(seed: int, ill: bool) -> Situation:
    """Class numbers of the validation set were given by another list of folders."""
    data, model = digits(seed), mlp(64, 64, 10)
    validation = (data.fresh_x, (data.fresh_t * 3 + 1) % 10) if ill else data.held
    return Situation(
        model,
        adam(model, 3e-3),
        F.cross_entropy,
        data.train,
        data.held,
        epochs=6,
        validation=validation,
        score=wrong_share,
    )


@asked(
    KIND,
    "https://github.com/keitakurita/practical-torchtext/issues/5",
    r"\bpad|same for every|last (step|state)|alike",
    ("no-signal",),
)
def the_last_step_is_padding(seed: int, ill: bool) -> Situation:
    """Sequences are padded by thirty zeros, and only the last outputs of a convolution are read: they see padding alone."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv1d(4, 32, 3), mlp(32, 32, 4)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.conv(x.transpose(1, 2)))
            return self.head(h[..., -1] if ill else h.mean(-1))

    data, model = sequences(seed), Net()
    train, held = [(F.pad(x, (0, 0, 0, 30)), t) if ill else (x, t) for x, t in (data.train, data.held)]
    return Situation(model, adam(model, 5e-3), F.cross_entropy, train, held)


def _thinned(t: Any, share: float) -> Any:
    """Rows of all samples of class 0 and of a share of class 1."""
    rows = t.numpy()
    ones = np.flatnonzero(rows == 1)
    kept = np.concatenate([np.flatnonzero(rows == 0), ones[: max(2, int(share * len(ones)))]])
    return kobai.from_numpy(np.random.default_rng(0).permutation(kept))
