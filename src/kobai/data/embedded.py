"""The digits data set, which comes with scikit-learn."""

from __future__ import annotations

from kobai.data.splits import TEST_FRACTION, TEST_SEED, DataSplits, Scaling, make_splits, stratified
from kobai.errors import DataError, install


def digits(*, validation: float = 0.1, seed: int = 0) -> DataSplits:
    """1797 handwritten digits, 8×8 pixels, that come with scikit-learn: real images, nothing to download.

    Pixels 0…16 are divided by 16; inputs are (1, 8, 8). The test split is a fixed, stratified fifth (359 images, drawn
    with seed 0 whatever ``seed`` is). Of the rest, a fraction ``validation`` is held out, drawn with ``seed`` and stratified
    too.

    Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998 (its
    test part).

    >>> digits()
    DataSplits('digits': 1294 train, 144 validation, 359 test; 1×8×8 inputs, 10 classes)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(f"digits: the images come with scikit-learn. Install it: {install('data')}") from error
    pixels, labels = load_digits(return_X_y=True)
    images = pixels.reshape(-1, 1, 8, 8)
    rest, test = stratified(labels, TEST_FRACTION, TEST_SEED, "digits: test")
    return make_splits(
        "digits",
        (images[rest], labels[rest]),
        (images[test], labels[test]),
        tuple("0123456789"),
        validation,
        seed,
        Scaling((0.0,), (16.0,)),
    )
