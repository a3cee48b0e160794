"""Transforms: Pillow's images and tensors alike, what they promise, and what torchvision 0.29 gave for the same input."""

from __future__ import annotations

import numpy as np
import pytest

import kobai
from kobai import nn, transforms as T
from kobai.transforms import colors, pictures

Image = pytest.importorskip("PIL.Image", reason="images are read by Pillow")

RAW = (np.arange(5 * 7 * 3).reshape(5, 7, 3) * 37 % 256).astype(np.uint8)


@pytest.fixture(params=["pillow", "bytes", "floats"])
def picture(request):
    image = Image.fromarray(RAW)
    return {"pillow": lambda: image, "bytes": lambda: T.PILToTensor()(image), "floats": lambda: T.ToTensor()(image)}[
        request.param
    ]()


def array(picture):
    """(C, H, W) in [0, 255]."""
    if not isinstance(picture, kobai.Tensor):
        values = np.asarray(picture).astype(np.float64)
        return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)
    return picture.numpy().astype(np.float64) * (255 if picture.is_floating_point() else 1)


WHOLE = RAW.transpose(2, 0, 1).astype(np.float64)

EXACT = [
    (T.CenterCrop(3), WHOLE[:, 1:4, 2:5]),
    (T.CenterCrop((7, 3)), np.pad(WHOLE, ((0, 0), (1, 1), (0, 0)))[:, :, 2:5]),
    (T.Pad((1, 2)), np.pad(WHOLE, ((0, 0), (2, 2), (1, 1)))),
    (T.Pad((1, 2, 3, 0), padding_mode="edge"), np.pad(WHOLE, ((0, 0), (2, 0), (1, 3)), "edge")),
    (T.Pad(2, padding_mode="reflect"), np.pad(WHOLE, ((0, 0), (2, 2), (2, 2)), "reflect")),
    (T.Pad(2, padding_mode="symmetric"), np.pad(WHOLE, ((0, 0), (2, 2), (2, 2)), "symmetric")),
    (T.RandomHorizontalFlip(1.0), WHOLE[:, :, ::-1]),
    (T.RandomVerticalFlip(1.0), WHOLE[:, ::-1]),
    (T.RandomHorizontalFlip(0.0), WHOLE),
    (T.RandomRotation((90, 90), expand=True), np.rot90(WHOLE, axes=(1, 2))),
    (T.RandomRotation((180, 180)), WHOLE[:, ::-1, ::-1]),
    (T.Resize((5, 7)), WHOLE),
    (T.ColorJitter(brightness=(0, 0)), 0 * WHOLE),
]


@pytest.mark.parametrize(("transform", "expected"), EXACT, ids=[str(each[0]) for each in EXACT])
def test_what_follows_from_the_definition(transform, expected, picture):
    np.testing.assert_allclose(array(transform(picture)), expected, atol=1e-4)


def test_margins_have_their_colour(picture):
    unit = 255 if isinstance(picture, kobai.Tensor) and picture.is_floating_point() else 1
    colours = (10 / unit, 20 / unit, 30 / unit)
    made = array(T.Pad(1, fill=colours)(picture))
    np.testing.assert_allclose(made[:, 0, 0], [10, 20, 30], atol=1e-4)
    np.testing.assert_allclose(made[:, 1:-1, 1:-1], WHOLE)
    assert (array(T.Pad(1, fill=7 / unit)(picture))[:, 0, 0].round() == 7).all()


# What torchvision 0.29 with Pillow 13 gave, to a unit of 255.
RESIZED = {
    "bilinear": [[99, 141, 118], [113, 155, 132], [96, 135, 146]],
    "bicubic": [[93, 151, 114], [110, 168, 128], [91, 139, 148]],
    "nearest": [[0, 222, 188], [9, 231, 197], [27, 249, 215]],
}


@pytest.mark.parametrize("how", list(RESIZED))
def test_sizes_are_torchvisions(how, picture):
    if how == "nearest" and not isinstance(picture, kobai.Tensor):
        picture = T.PILToTensor()(picture)  # Pillow takes the middle of the pixels, tensors their corner
    made = array(T.Resize((3, 3), T.InterpolationMode(how))(picture))
    np.testing.assert_allclose(made[0], RESIZED[how], atol=1)


@pytest.mark.parametrize(
    ("size", "most", "expected"), [(10, None, (10, 14)), (10, 12, (8, 12)), ((2, 9), None, (2, 9))]
)
def test_the_shorter_edge_is_brought_to_a_size(size, most, expected, picture):
    assert pictures.size_of(T.Resize(size, max_size=most)(picture)) == expected


def test_grey_is_what_the_eye_sees(picture):
    expected = np.tensordot([0.2989, 0.587, 0.114], WHOLE, 1)
    np.testing.assert_allclose(array(T.Grayscale()(picture))[0], expected, atol=1.5)
    assert (np.ptp(array(T.Grayscale(3)(picture)), axis=0) == 0).all()


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5])
def test_colours_move_between_their_ends(factor, picture):
    grey = array(T.Grayscale()(picture))
    for change, end in (
        (colors.brightness, 0.0),
        (colors.saturation, grey),
        (colors.contrast, grey.mean() if isinstance(picture, kobai.Tensor) else round(grey.mean())),
    ):
        expected = np.clip(end + factor * (WHOLE - end), 0, 255)
        np.testing.assert_allclose(array(change(picture, factor)), np.broadcast_to(expected, WHOLE.shape), atol=2)


def test_hues_go_round_in_a_circle(picture):
    exact = 6 if not isinstance(picture, kobai.Tensor) else 1.01  # Pillow keeps hues in 8 bits
    np.testing.assert_allclose(array(colors.hue(picture, 0.0)), WHOLE, atol=exact)
    if isinstance(picture, kobai.Tensor) and picture.is_floating_point():
        thirds = colors.hue(picture, 1 / 3)
        np.testing.assert_allclose(array(thirds), WHOLE[[2, 0, 1]], atol=0.01)  # red becomes green, green blue


def test_a_part_lies_within_the_image(picture):
    kobai.manual_seed(0)
    corners = set()
    for _ in range(100):
        part = array(T.RandomCrop(3)(picture))
        (place,) = [
            (i, j) for i in range(3) for j in range(5) if np.abs(WHOLE[:, i : i + 3, j : j + 3] - part).max() < 1e-3
        ]
        corners.add(place)
    assert len(corners) == 15
    assert pictures.size_of(T.RandomCrop(9, padding=2, pad_if_needed=True)(picture)) == (9, 9)
    assert pictures.size_of(T.RandomResizedCrop(4)(picture)) == (4, 4)
    with pytest.raises(ValueError, match=r"RandomCrop: expected an image of at least \(9, 9\), got \(5, 7\)"):
        T.RandomCrop(9)(picture)


def test_one_seed_gives_the_same_images(picture):
    transform = T.Compose(
        [
            T.RandomResizedCrop(6),
            T.RandomRotation(20),
            T.ColorJitter(0.2, 0.3, 0.4, 0.1),
            T.RandomApply([T.RandomHorizontalFlip()], 0.7),
            T.RandomChoice([T.Pad(1), T.Lambda(lambda x: x)]),
            T.RandomOrder([T.RandomGrayscale(0.5), T.RandomVerticalFlip()]),
        ]
    )
    runs = []
    for _ in range(2):
        kobai.manual_seed(3)
        runs.append([array(transform(picture)) for _ in range(8)])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({each.tobytes() for each in runs[0]}) == 8


def test_rectangles_are_erased():
    kobai.manual_seed(0)
    x = kobai.ones(2, 3, 16, 16)
    shares = []
    for _ in range(50):
        erased = T.RandomErasing(1.0, value=5)(x) == 5
        assert bool((erased == erased[:1, :1]).all())  # the same place in every channel and sample
        shares.append(erased.float().mean().item())
    assert min(shares) > 0.01
    assert max(shares) < 0.4
    assert bool((x == 1).all())
    assert not bool((T.RandomErasing(1.0, value="random")(x) == 1).all())
    T.RandomErasing(1.0, value=(1, 2, 3), inplace=True)(x)
    assert set(x[:, 1].flatten().tolist()) == {1.0, 2.0}
    with pytest.raises(TypeError, match=r"RandomErasing: .* ToTensor comes before it"):
        T.RandomErasing()(Image.fromarray(RAW))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "I", "F"])
def test_images_of_every_mode_become_tensors(mode):
    image = Image.fromarray(RAW).convert("L" if mode in "IF" else "RGB").convert(mode)
    made = T.ToTensor()(image)
    assert made.shape == (len(image.getbands()), 5, 7)
    scale = 255 if made.is_floating_point() and mode != "F" else 1
    values = np.asarray(image).reshape(5, 7, -1).astype(np.float64) * (255 if mode == "1" else 1)
    np.testing.assert_allclose(made.numpy() * scale, values.transpose(2, 0, 1), rtol=1e-6)


def test_there_and_back():
    image = Image.fromarray(RAW)
    assert (np.asarray(T.ToPILImage()(T.ToTensor()(image))) == RAW).all()
    assert (np.asarray(T.ToPILImage()(T.PILToTensor()(image))) == RAW).all()
    assert T.ToPILImage()(kobai.ones(4, 4)).mode == "L"
    assert (np.asarray(T.ToPILImage()(RAW[..., :1])) == RAW[..., 0]).all()
    for dtype in (kobai.int16, kobai.int64, kobai.float64):
        there = T.ConvertImageDtype(dtype)(T.PILToTensor()(image))
        assert (T.ConvertImageDtype(kobai.uint8)(there).numpy() == RAW.transpose(2, 0, 1)).all()
    assert T.ConvertImageDtype(kobai.uint8)(kobai.tensor([[[0.0, 1.0]]])).tolist() == [[[0, 255]]]


def test_normalised_channels_have_mean_0_and_deviation_1():
    x = kobai.rand(4, 3, 8, 8)
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    y = T.Normalize(mean.tolist(), std.tolist())(x)
    np.testing.assert_allclose(y.mean((0, 2, 3)).numpy(), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 2, 3)).numpy(), 1, atol=1e-5)
    z = x.clone()
    T.Normalize(0.5, 0.5, inplace=True)(z)
    np.testing.assert_allclose(z.numpy(), 2 * x.numpy() - 1, atol=1e-6)


WRONG = [
    (lambda: T.ToTensor()("x.png"), TypeError, "ToTensor: expected an image of Pillow's or a tensor, got str"),
    (lambda: T.ToTensor()(kobai.ones(1, 2, 2)), TypeError, "got a tensor already"),
    (
        lambda: T.Resize(4)(np.zeros((3, 3))),
        TypeError,
        "Resize: expected an image of Pillow's or a tensor, got ndarray",
    ),
    (lambda: T.Resize(0), ValueError, "Resize: expected a size of at least 1"),
    (lambda: T.Resize(4, "lanczos"), ValueError, "Resize: expected interpolation as one of nearest, bilinear, bicubic"),
    (lambda: T.Resize((4, 4), max_size=9), ValueError, "Resize: expected max_size above a size of one number"),
    (lambda: T.Pad((1, 2, 3)), ValueError, "Pad: expected padding as 1, 2 or 4 integers"),
    (lambda: T.Pad(1, padding_mode="wrap"), ValueError, "Pad: expected padding_mode as one of constant, edge"),
    (lambda: T.Pad(1, fill=(1, 2))(kobai.ones(3, 4, 4)), ValueError, "Pad: expected 3 values of fill"),
    (lambda: T.RandomHorizontalFlip(2), ValueError, "RandomHorizontalFlip: expected a probability p"),
    (lambda: T.RandomRotation((3, 1)), ValueError, "RandomRotation: expected degrees >= 0, or"),
    (lambda: T.ColorJitter(brightness=-1), ValueError, "ColorJitter: expected brightness >= 0"),
    (lambda: T.ColorJitter(hue=0.7), ValueError, r"ColorJitter: expected hue within \(-0.5, 0.5\)"),
    (lambda: T.Grayscale(2), ValueError, "Grayscale: expected num_output_channels as 1 or 3, got 2"),
    (lambda: T.Normalize((0, 0), (1, 0)), ValueError, "Normalize: expected std other than 0"),
    (lambda: T.Normalize((0, 0), (1, 1))(kobai.ones(3, 2, 2)), ValueError, "Normalize: expected 1 or 3 values of mean"),
    (lambda: T.Normalize(0, 1)(Image.fromarray(RAW)), TypeError, r"Normalize: .*ToTensor makes one"),
    (lambda: T.RandomErasing(value="noise"), ValueError, "RandomErasing: expected value as numbers or 'random'"),
    (lambda: T.Compose("abc"), TypeError, "Compose: expected a list of transforms, got str"),
    (lambda: T.Lambda(3), TypeError, "Lambda: expected a function, got int"),
    (lambda: T.RandomChoice([T.Pad(1)], p=[0.5, 0.5]), ValueError, "RandomChoice: expected 1 weights p"),
    (lambda: T.Augment(-1), ValueError, "Augment: expected shift as an integer >= 0"),
    (lambda: T.Augment()(kobai.ones(3, 3)), ValueError, r"Augment: expected \(N, C, H, W\)"),
]


@pytest.mark.parametrize(("call", "error", "words"), WRONG, ids=[each[2][:40] for each in WRONG])
def test_what_is_wrong_is_named(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- a whole batch ----------------------------------------------------------------------------------------------------


def test_each_image_of_a_batch_goes_its_own_way():
    kobai.manual_seed(0)
    x = kobai.rand(200, 2, 5, 6)
    y = T.Augment(shift=1, flip=True)(x).numpy()
    margin = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    seen = set()
    for k in range(200):
        ways = [
            (i, j, step)
            for i in range(3)
            for j in range(3)
            for step in (1, -1)
            if np.array_equal(margin[k, :, :, ::step][:, i : i + 5, j : j + 6], y[k])
        ]
        assert len(ways) == 1
        seen.add(ways[0])
    assert len(seen) == 18


def test_a_captured_step_augments_as_an_eager_one_does():
    outcomes = []
    for wrap in (lambda f: f, kobai.capture):
        kobai.manual_seed(1)
        net = nn.Sequential(T.Augment(2, flip=True), nn.Flatten(), nn.Linear(64, 3))
        optimizer = kobai.optim.Adam(net.parameters())
        x, t = kobai.rand(12, 1, 8, 8), kobai.randint(0, 3, (12,))

        @wrap
        def step(x, t):
            optimizer.zero_grad()  # noqa: B023
            loss = nn.functional.cross_entropy(net(x), t)  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            return loss

        outcomes.append([step(x, t).item() for _ in range(6)])
    assert outcomes[0] == outcomes[1]
    assert len(set(outcomes[0])) == 6
