"""Fresh: the data."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Speaker, boxes, pixels, sentences
from exam.material import Data, adam, digits, mlp, sgd, surface, table, words
from exam.question import Situation, asked, rng_of
from kobai import nn
from kobai.nn import functional as F

KIND = "data"
UNRELATED = r"label[^.]{0,80}(nothing|unrelated|chance|random|belong)|unrelated|nothing to do|neighbour|mismatch"
RARE = r"rare|imbalanc|class[_ ]?weight|pos_weight|most frequent|(one|same|single) class"
SHARED = r"duplicate|overlap|leak|(in|on) both|copies|same samples?|near-?identical"


class Bag(nn.Module):
    """The mean of the words' vectors, and a small net."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, 24), mlp(24, 32, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.embed(x).mean(1))


@asked(KIND, "https://github.com/DaoyuanLi2816/Molecule-Generator/pull/20", RARE + r"|\bpad|ignore_index")
def padding_that_counts(seed: int, ill: bool) -> Situation:
    """Most positions of the targets are padding, and the loss counts them: the model learns to say nothing."""
    data = sentences(seed, length=16)

    def padded(words: Any) -> Any:
        there = np.arange(16) < np.random.default_rng(seed).integers(1, 4, (len(words), 1))
        return kobai.from_numpy(np.where(there, words.numpy() + 1, 0))

    x, t = [padded(x) for x in (data.x, data.fresh_x)], [padded(t) for t in (data.t, data.fresh_t)]

    def loss_fn(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, 21), t.reshape(-1), ignore_index=-100 if ill else 0)

    def score(y: Any, t: Any) -> Any:
        return F.cross_entropy(y.reshape(-1, 21), t.reshape(-1), ignore_index=0)

    model = Speaker(21)
    return Situation(model, adam(model, 2e-3), loss_fn, (x[0], t[0]), (x[1], t[1]), score=score, steps=120)


@asked(
    KIND,
    "https://github.com/amanshenoy/multilogue-net/issues/21",
    RARE + r"|weights?[^.]{0,60}class|class[^.]{0,60}weight",
)
def class_weights_the_wrong_way_round(seed: int, ill: bool) -> Situation:
    """Of two classes one has eight in a hundred samples, and the loss gives the frequent one the large weight."""
    data = digits(seed, 1300)
    rare = [(t == 3).long() for t in (data.t, data.fresh_t)]
    weight = kobai.tensor([10.0, 1.0] if ill else [1.0, 10.0])

    def score(y: Any, t: Any) -> Any:
        return F.cross_entropy(y, t, weight=kobai.tensor([1.0, 10.0]))

    model, loss_fn = mlp(64, 16, 2), nn.CrossEntropyLoss(weight=weight)
    return Situation(model, sgd(model, 0.01), loss_fn, (data.x, rare[0]), (data.fresh_x, rare[1]), score=score)


@asked(KIND, "https://github.com/zhixuhao/unet/issues/101", RARE + r"|background")
def a_few_pixels_that_matter(seed: int, ill: bool) -> Situation:
    """Masks of four pixels in 144: the segmentation says background everywhere."""
    data, model = boxes(seed, side=2 if ill else 7), pixels()

    def missed(y: Any, t: Any) -> Any:
        return ((y.argmax(1) != t) & (t == 1)).float().sum() / t.sum()

    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, batch=32, steps=60, score=missed)


@asked(KIND, "https://github.com/xudonmao/VMT/issues/1", UNRELATED)
def mixed_with_another_permutation(seed: int, ill: bool) -> Situation:
    """mixup draws one partner for the inputs and another for the labels."""
    data, rng = digits(seed), rng_of(seed)
    order, other = rng.permutation(len(data.x)), rng.permutation(len(data.x))
    share = kobai.from_numpy(rng.beta(1, 1, (len(data.x), 1)).astype(np.float32))
    hot = F.one_hot(data.t, 10).float()
    x = share * data.x[order] + (1 - share) * data.x
    t = share * hot[other if ill else order] + (1 - share) * hot[rng.permutation(len(hot)) if ill else slice(None)]
    held = (data.fresh_x, F.one_hot(data.fresh_t, 10).float())
    model = mlp(64, 96, 10)
    return Situation(model, adam(model, 2e-3), F.cross_entropy, (x, t), held)


@asked(KIND, "https://github.com/Y-debug-sys/Diffusion-TS/issues/67", SHARED)
def windows_that_overlap(seed: int, ill: bool) -> Situation:
    """A long series is cut into windows that overlap, and these are shuffled before the split."""
    rng = rng_of(seed)
    series = np.cumsum(rng.normal(size=1500))
    series = ((series - series.mean()) / series.std()).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(series, 17)
    x, t = np.ascontiguousarray(windows[:, :16]), np.ascontiguousarray(windows[:, 16:])
    order = rng.permutation(len(x)) if ill else np.arange(len(x))
    first, last = order[:1000], order[1000 if ill else 1016 :]
    parts = Data(*(kobai.from_numpy(part) for part in (x[first], t[first], x[last], t[last])))
    model = mlp(16, 64, 1)
    return Situation(model, adam(model, 2e-3), F.mse_loss, parts.train, parts.held, validation=parts.held)


@asked(KIND, "https://github.com/evandowning/deepreflect/issues/11", r"\bnan|not finite|non-?finite|infinite|missing")
def a_constant_column_divided_by_its_range(seed: int, ill: bool) -> Situation:
    """One column is constant, so that its minimum is its maximum, and the scaled inputs are 0/0."""
    data = surface(seed, inputs=12)
    x = [part.clone() for part in (data.x, data.fresh_x)]
    for part in x:
        part[:, 5] = float("nan") if ill else 0.0
    model = mlp(12, 64, 1)
    return Situation(model, adam(model, 3e-3), F.mse_loss, (x[0], data.t), (x[1], data.fresh_t))


@asked(
    KIND,
    "https://github.com/neurodata/SPORF/issues/355",
    r"leak|copy|copies|(target|label)[^.]{0,80}(input|feature|column)|(input|feature|column)[^.]{0,80}(target|label)",
)
def the_target_among_the_features(seed: int, ill: bool) -> Situation:
    """The label's column was not taken out of the table: one of the features is the answer."""
    data = table("breast_cancer", seed)
    centre, width = data.x.mean(0), data.x.std(0)
    x = [(part - centre) / width for part in (data.x, data.fresh_x)]
    if ill:
        x = [kobai.cat([part, 2 * t[:, None].float() - 1], 1) for part, t in zip(x, data[1::2], strict=True)]
    model = mlp(31 if ill else 30, 32, 2)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, (x[0], data.t), (x[1], data.fresh_t), batch=32)


@asked(KIND, "https://github.com/divamgupta/image-segmentation-keras/issues/115", UNRELATED)
def masks_that_were_not_flipped_along(seed: int, ill: bool) -> Situation:
    """Augmentation turns and flips the image by chance, and the mask by another."""
    data, rng = boxes(seed, side=5), rng_of(seed)

    def turned(parts: Any, draws: Any) -> Any:
        arrays = [np.rot90(part, draw, (-2, -1)) for part, draw in zip(parts.numpy(), draws, strict=True)]
        return kobai.from_numpy(np.stack(arrays))

    draws = rng.integers(0, 4, len(data.x))
    others = rng.integers(0, 4, len(data.x)) if ill else draws
    model = pixels()
    train = (turned(data.x, draws), turned(data.t, others))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, train, data.held, batch=32, steps=60)


@asked(KIND, "https://github.com/minqukanq/hierarchical-multi-label-text-classification/issues/6", r"validation|held")
def words_numbered_anew_for_the_validation(seed: int, ill: bool) -> Situation:
    """The validation set has a vocabulary of its own: the same word has another number there."""
    data = words(seed)
    order = kobai.from_numpy(rng_of(seed).permutation(60))
    validation = (order[data.fresh_x] if ill else data.fresh_x, data.fresh_t)

    model = Bag(60)
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, validation=validation, epochs=6)


@asked(KIND, "https://github.com/yufengm/Adaptive/issues/4", r"validation|held")
def validation_of_unknown_words(seed: int, ill: bool) -> Situation:
    """The validation texts were split by another tokenizer: nearly every word is looked up as unknown."""
    data, rng = words(seed), rng_of(seed)
    known = rng.random(data.fresh_x.shape) < (0.1 if ill else 1.1)
    x, fresh = data.x + 1, data.fresh_x + 1
    validation = (kobai.from_numpy(np.where(known, fresh.numpy(), 0)), data.fresh_t)
    model = Bag(61)
    return Situation(
        model, adam(model, 5e-3), F.cross_entropy, (x, data.t), (fresh, data.fresh_t), validation=validation, epochs=6
    )
