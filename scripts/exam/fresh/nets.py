"""Fresh healthy nets of unusual but right kinds: how they are built."""

from __future__ import annotations

from typing import Any

import numpy as np

import kobai
from exam.fresh.material import Reader, boxes, per_word, sentences
from exam.material import adam, circles, digits, images, mlp, sequences, sgd, split, surface, words
from exam.question import Situation, healthy, rng_of
from kobai import nn
from kobai.nn import functional as F


@healthy("https://arxiv.org/abs/1909.11942")
def one_layer_used_four_times(seed: int) -> Situation:
    """One layer is applied four times, as where parameters are shared across layers."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.head = nn.Linear(64, 48), nn.Linear(48, 48), nn.Linear(48, 10)

        def forward(self, x: Any) -> Any:
            h = F.relu(self.first(x))
            for _ in range(4):
                h = h + 0.5 * F.relu(self.layer(h))
            return self.head(h)

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1703.03130")
def attention_inside(seed: int) -> Situation:
    """A softmax over the positions of a sentence, in the middle of the net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.score, self.head = nn.GRU(4, 32, batch_first=True), nn.Linear(32, 1), nn.Linear(32, 4)

        def forward(self, x: Any) -> Any:
            h = self.rnn(x)[0]
            return self.head((F.softmax(self.score(h), 1) * h).sum(1))

    data, model = sequences(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://people.eecs.berkeley.edu/~brecht/papers/07.rah.rec.nips.pdf (random features)")
def random_features_that_stay(seed: int) -> Situation:
    """A wide first layer is random and frozen on purpose; only the linear read-out is trained."""
    data, model = circles(seed), mlp(2, 200, 2)
    model[0].requires_grad_(False)
    return Situation(model, adam(model[2], 1e-2), F.cross_entropy, data.train, data.held)


class Frozen(nn.Module):
    """A frozen body, which stays in evaluation mode, and a head."""

    def __init__(self, body: nn.Module, outputs: int, width: int) -> None:
        super().__init__()
        self.body, self.head = body.requires_grad_(False), nn.Linear(width, outputs)

    def train(self, mode: bool = True) -> Any:
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x: Any) -> Any:
        return self.head(self.body(x))


@healthy("https://github.com/kdexd/virtex/issues/16 (with the body in evaluation mode)")
def frozen_body_in_evaluation_mode(seed: int) -> Situation:
    """A frozen body keeps its batch norms in evaluation mode, as a linear probe should."""
    data = digits(seed)
    body = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU())
    with kobai.no_grad():
        for _ in range(40):
            body.train()(data.fresh_x)
    model = Frozen(body, 10, 64).train()
    return Situation(model, adam(model.head, 1e-2), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1703.06114")
def a_set_without_positions(seed: int) -> Situation:
    """A transformer without positions: its question is about a set, whose order says nothing."""
    data = words(seed)
    model = Reader(60, 3, causal=False, pooled=True, positions=False)
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held, steps=80)


@healthy("https://arxiv.org/abs/2003.04887")
def branches_that_begin_closed(seed: int) -> Situation:
    """Each residual branch is multiplied by a learnt gate that begins at 0."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.gate = mlp(64, 64, 64), nn.Parameter(kobai.zeros(1))

        def forward(self, x: Any) -> Any:
            return x + self.gate * self.inner(x)

    data, model = digits(seed), nn.Sequential(*[Block() for _ in range(6)], nn.Linear(64, 10))
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1505.04597")
def image_to_image_with_skips(seed: int) -> Situation:
    """An encoder and decoder with a skip connection, for masks."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.inner = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
            self.up, self.head = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 2, 1)

        def forward(self, x: Any) -> Any:
            wide = F.relu(self.down(x))
            deep = F.relu(self.inner(F.max_pool2d(wide, 2)))
            return self.head(kobai.cat([wide, F.relu(self.up(deep))], 1))

    data, model = boxes(seed), Net()
    return Situation(model, adam(model, 5e-3), F.cross_entropy, data.train, data.held, batch=32, steps=60)


@healthy("https://arxiv.org/abs/1609.03499")
def dilated_causal_convolutions(seed: int) -> Situation:
    """A language model of convolutions that look to the left only."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 32), nn.Linear(32, 20)
            self.layers = nn.ModuleList([nn.Conv1d(32, 32, 2, dilation=d) for d in (1, 2, 4)])

        def forward(self, x: Any) -> Any:
            h = self.embed(x).transpose(1, 2)
            for layer in self.layers:
                h = h + F.relu(layer(F.pad(h, (layer.dilation[0], 0))))
            return self.head(h.transpose(1, 2))

    data, model = sentences(seed), Net()
    return Situation(model, adam(model, 3e-3), per_word, data.train, data.held)


@healthy("https://arxiv.org/abs/1810.04805")
def masked_words(seed: int) -> Situation:
    """Three words of ten are hidden and have to be guessed from both sides: there is no causal mask, and none is needed."""
    data, rng = sentences(seed), rng_of(seed)

    def hidden(x: Any) -> tuple[Any, Any]:
        gone = rng.random(x.shape) < 0.3
        return kobai.from_numpy(np.where(gone, 20, x.numpy())), kobai.from_numpy(np.where(gone, x.numpy(), -100))

    model = Reader(21, 20, causal=False)
    return Situation(model, adam(model, 5e-3), per_word, hidden(data.x), hidden(data.fresh_x))


@healthy("https://arxiv.org/abs/1612.08083")
def gated_linear_units(seed: int) -> Situation:
    """Halves of a layer gate each other, and there is no other activation."""
    data = surface(seed)
    model = nn.Sequential(nn.Linear(8, 64), nn.GLU(), nn.Linear(32, 64), nn.GLU(), nn.Linear(32, 1))
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/1302.4389")
def maxout(seed: int) -> Situation:
    """The greatest of three linear units is the activation."""

    class Layer(nn.Module):
        def __init__(self, n_in: int, n_out: int) -> None:
            super().__init__()
            self.inner, self.n_out = nn.Linear(n_in, 3 * n_out), n_out

        def forward(self, x: Any) -> Any:
            return self.inner(x).reshape(len(x), self.n_out, 3).amax(2)

    data, model = circles(seed), nn.Sequential(Layer(2, 24), Layer(24, 2))
    return Situation(model, adam(model, 1e-2), F.cross_entropy, data.train, data.held)


@healthy("https://www.complex-systems.com/abstracts/v02_i03_a05/ (Broomhead and Lowe 1988)")
def radial_functions(seed: int) -> Situation:
    """Gaussian bumps around learnt centres, which are nearly 0 for most inputs."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centre, self.head = nn.Parameter(1.2 * kobai.randn(60, 2)), nn.Linear(60, 2)

        def forward(self, x: Any) -> Any:
            return self.head((-2 * ((x[:, None] - self.centre) ** 2).sum(2)).exp())

    data, model = circles(seed), Net()
    return Situation(model, adam(model, 3e-2), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1609.09106")
def a_net_that_makes_the_weights(seed: int) -> Situation:
    """The weights of the last layer are computed from the input by another net."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.maker = mlp(8, 32, 16), mlp(8, 32, 16)

        def forward(self, x: Any) -> Any:
            return (self.body(x) * self.maker(x)).sum(1, keepdim=True)

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/1602.07868")
def weight_norm(seed: int) -> Situation:
    """Direction and length of each weight are separate parameters."""
    data, model = digits(seed), mlp(64, 64, 10)
    for layer in (model[0], model[2]):
        nn.utils.weight_norm(layer)
    return Situation(model, sgd(model, 0.05), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1802.05957")
def spectral_norm_of_a_critic(seed: int) -> Situation:
    """A hinge critic whose layers are divided by their largest singular value."""
    data = digits(seed)
    target = [(2 * (t % 2) - 1).float()[:, None] for t in (data.t, data.fresh_t)]
    model = mlp(64, 64, 64, 1, act=lambda: nn.LeakyReLU(0.1))
    for layer in (model[0], model[2], model[4]):
        nn.utils.spectral_norm(layer)

    def loss_fn(y: Any, t: Any) -> Any:
        return F.relu(1 - t * y).mean()

    return Situation(model, adam(model, 2e-3), loss_fn, (data.x, target[0]), (data.fresh_x, target[1]))


@healthy("https://arxiv.org/abs/1308.3432")
def straight_through_signs(seed: int) -> Situation:
    """Hidden units are ±1 by a custom Function whose gradient is, on purpose, that of another function."""

    class Sign(kobai.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return kobai.where(x > 0, 1.0, -1.0)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad * (x.abs() < 1).float()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = nn.Linear(64, 128), nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            return self.head(Sign.apply(self.first(x)))

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1711.00937")
def a_book_of_codes(seed: int) -> Situation:
    """A vector-quantised autoencoder: an argmin and two detach() in the middle, and a copied gradient, all on purpose."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = mlp(64, 48, 16), mlp(16, 48, 64)
            self.book = nn.Parameter(0.5 * kobai.randn(32, 4))

        def forward(self, x: Any) -> Any:
            z = self.encoder(x).reshape(-1, 1, 4)
            code = self.book[((z - self.book) ** 2).sum(2).argmin(1)]
            z = z[:, 0]
            near = ((z.detach() - code) ** 2).mean() + 0.25 * ((z - code.detach()) ** 2).mean()
            return self.decoder((z + (code - z).detach()).reshape(len(x), 16)), near

    def loss_fn(y: Any, t: Any) -> Any:
        return F.mse_loss(y[0], t) + y[1]

    data, model = digits(seed), Net()
    return Situation(model, adam(model, 3e-3), loss_fn, (data.x, data.x), (data.fresh_x, data.fresh_x))


@healthy("https://arxiv.org/abs/2408.00118 (soft capping of scores)")
def scores_softly_capped_at_thirty(seed: int) -> Situation:
    """Scores are 30·tanh(y/30): bounded on purpose, and far wider than needed."""
    data, body = digits(seed), mlp(64, 64, 10)

    class Capped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: Any) -> Any:
            return 30 * kobai.tanh(self.body(x) / 30)

    model = Capped()
    return Situation(model, adam(model, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1609.05158")
def pixels_shuffled_into_a_larger_image(seed: int) -> Situation:
    """Super-resolution: channels become pixels, by a reshape that keeps the samples apart."""
    data = images(seed)
    small, fresh = data.x[:, :, ::2, ::2].contiguous(), data.fresh_x[:, :, ::2, ::2].contiguous()
    model = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 4, 3, padding=1), nn.PixelShuffle(2))
    return Situation(model, adam(model, 5e-3), F.mse_loss, (small, data.x), (fresh, data.fresh_x))


@healthy("https://arxiv.org/abs/1603.09382")
def layers_left_out_by_chance(seed: int) -> Situation:
    """Stochastic depth: in training a whole residual branch is dropped for some samples."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(64, 64, 64)

        def forward(self, x: Any) -> Any:
            keep = (kobai.rand(len(x), 1) < 0.8).float() if self.training else 0.8
            return x + keep * self.inner(x)

    data, model = digits(seed), nn.Sequential(Block(), Block(), Block(), nn.Linear(64, 10))
    return Situation(model, adam(model, 1e-3), F.cross_entropy, data.train, data.held)


@healthy("https://pytorch.org/docs/stable/generated/torch.nn.Embedding.html (padding_idx)")
def sentences_with_a_padding_row(seed: int) -> Situation:
    """Row 0 of the embedding is padding: it stays 0 and gets no gradient."""
    data, rng = words(seed), rng_of(seed)

    def padded(x: Any) -> Any:
        there = np.arange(10) < rng.integers(6, 11, (len(x), 1))
        return kobai.from_numpy(np.where(there, x.numpy() + 1, 0))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(61, 24, padding_idx=0), mlp(24, 32, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.embed(x).sum(1) / (x > 0).sum(1, keepdim=True).float())

    model = Net()
    return Situation(
        model, adam(model, 5e-3), F.cross_entropy, (padded(data.x), data.t), (padded(data.fresh_x), data.fresh_t)
    )


@healthy("https://scikit-learn.org/stable/modules/feature_extraction.html (bags of words)")
def a_sparse_bag_of_words(seed: int) -> Situation:
    """Counts of 400 words, of which a text has a dozen: most inputs are 0 for every sample of a batch."""
    data = words(seed, vocabulary=399, length=16)

    def counts(x: Any) -> Any:
        return F.one_hot(x, 400).float().sum(1)

    model = mlp(400, 32, 3)
    return Situation(
        model, adam(model, 5e-3), F.cross_entropy, (counts(data.x), data.t), (counts(data.fresh_x), data.fresh_t)
    )


@healthy("https://www.tensorflow.org/tutorials/structured_data/time_series (naive baseline plus a correction)")
def a_correction_of_the_last_value(seed: int) -> Situation:
    """A forecast is the last value plus what a small net adds, so its first loss is low already."""
    rng = rng_of(seed)
    phase, speed = rng.uniform(0, 6.28, (1200, 1)), rng.uniform(0.2, 0.9, (1200, 1))
    series = (np.sin(phase + speed * np.arange(13)) + 0.05 * rng.normal(size=(1200, 13))).astype(np.float32)
    data = split(series[:, :12], np.ascontiguousarray(series[:, 12:]), seed, 700)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = mlp(12, 32, 1)

        def forward(self, x: Any) -> Any:
            return x[:, -1:] + self.inner(x)

    model = Net()
    return Situation(model, adam(model, 3e-3), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/1803.05407 (an average of weights is kept beside the net)")
def an_average_of_the_weights_in_the_module(seed: int) -> Situation:
    """The module holds a frozen copy of itself, as for a momentum encoder, which only its owner updates."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.online, self.slow = mlp(64, 64, 10), mlp(64, 64, 10)
            self.slow.load_state_dict(self.online.state_dict())
            self.slow.requires_grad_(False)

        def forward(self, x: Any) -> Any:
            return self.online(x)

    data, model = digits(seed), Net()
    return Situation(model, adam(model.online, 2e-3), F.cross_entropy, data.train, data.held)


@healthy("https://arxiv.org/abs/1701.06538 (a soft gate)")
def experts_under_a_soft_gate(seed: int) -> Situation:
    """Every expert gives an answer, and a softmax weighs them."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.experts = nn.Linear(8, 4), nn.ModuleList([mlp(8, 24, 1) for _ in range(4)])

        def forward(self, x: Any) -> Any:
            answers = kobai.cat([expert(x) for expert in self.experts], 1)
            return (F.softmax(self.gate(x), 1) * answers).sum(1, keepdim=True)

    data, model = surface(seed), Net()
    return Situation(model, adam(model, 5e-3), F.mse_loss, data.train, data.held)


@healthy("https://arxiv.org/abs/1412.6806")
def pooling_by_strides_alone(seed: int) -> Situation:
    """Convolutions with strides, and no pooling layer."""
    data = images(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return Situation(model, adam(model, 3e-3), F.cross_entropy, data.train, data.held)
