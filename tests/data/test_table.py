"""kobai.data: CSV files, and load() by name."""

import re
import warnings

import numpy as np
import pytest

import kobai
from data.builders import write_mnist
from kobai.data import csv, load
from kobai.errors import DataError


def write(path, text, **options):
    path.write_text(text, **options)
    return path


def rows(n=40, label=lambda i: "odd" if i % 2 else "even", sep=","):
    return "".join(f"{i}{sep}{(i * 7) % 11}.5{sep}{label(i)}\n" for i in range(n))


@pytest.fixture
def file(tmp_path):
    return lambda text: write(tmp_path / "table.csv", text)


def everything(splits):
    """All features, as they were before standardisation, and labels, sorted by the first feature."""
    x = np.concatenate([p.tensors[0].numpy() for p in (splits.train, splits.validation, splits.test)])
    t = np.concatenate([p.tensors[1].numpy() for p in (splits.train, splits.validation, splits.test)])
    raw = x * np.array(splits.scaling.scale) + np.array(splits.scaling.shift)
    order = np.argsort(raw[:, 0])
    return raw[order], t[order]


def test_shapes_types_and_values(file):
    splits = csv(file("a,b,kind\n" + rows()))
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [29, 3, 8]
    x, t = splits.train.tensors
    assert (x.dtype, x.shape, t.dtype) == (np.float32, (29, 2), np.int64)
    assert splits.classes == ("even", "odd")
    assert splits.features == ("a", "b")
    assert splits.input_shape == (2,)
    assert splits.name == "table"
    raw, labels = everything(splits)
    np.testing.assert_allclose(raw[:, 0], np.arange(40), atol=1e-4)
    np.testing.assert_allclose(raw[:, 1], (np.arange(40) * 7) % 11 + 0.5, atol=1e-4)
    assert labels.tolist() == [0, 1] * 20


def test_standardised_by_the_training_rows_alone(file):
    splits = csv(file(rows(200)))
    train = splits.train.tensors[0].numpy()
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-6)
    assert abs(splits.test.tensors[0].numpy().mean(axis=0)).max() > 1e-3


def test_scaling_maps_new_rows_alike(file):
    splits = csv(file(rows()))
    np.testing.assert_allclose(splits.scaling(np.array([splits.scaling.shift])), [[0.0, 0.0]])


def test_constant_feature_becomes_zero(file):
    splits = csv(file("".join(f"5,{i},{i % 2}\n" for i in range(20))))
    assert set(splits.train.tensors[0][:, 0].tolist()) == {0.0}


def test_the_test_split_does_not_depend_on_the_seed(file):
    path = file(rows())
    a, b = csv(path, seed=1), csv(path, seed=2)
    assert kobai.equal(a.test.tensors[1], b.test.tensors[1])
    raw_a = a.test.tensors[0].numpy() * a.scaling.scale + a.scaling.shift
    raw_b = b.test.tensors[0].numpy() * b.scaling.scale + b.scaling.shift
    np.testing.assert_allclose(raw_a, raw_b, atol=1e-4)
    again = csv(path, seed=1)
    assert kobai.equal(a.train.tensors[0], again.train.tensors[0])


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_seeds_are_checked(file, seed):
    with pytest.raises(ValueError, match="expected seed as an integer >= 0, got"):
        csv(file(rows()), seed=seed)


@pytest.mark.parametrize("label", ["kind", 0, -3])
def test_label_column_by_name_or_index(file, label):
    text = "kind,a,b\n" + "".join(f"{'xyz'[i % 3]},{i},{i * i}\n" for i in range(30))
    splits = csv(file(text), label=label)
    assert splits.classes == ("x", "y", "z")
    assert splits.features == ("a", "b")
    assert everything(splits)[1].tolist() == [0, 1, 2] * 10


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_delimiter_is_found(file, sep):
    assert csv(file(f"a{sep}b{sep}kind\n" + rows(sep=sep))).features == ("a", "b")


def test_given_delimiter(file):
    assert csv(file(rows(sep=":")), delimiter=":").input_shape == (2,)


@pytest.mark.parametrize(
    ("first", "features", "n"),
    [
        ("", (), 40),  # data only, labels are text
        ("x,y,label\n", ("x", "y"), 40),
        ("x,y,1\n", ("x", "y"), 40),
    ],
)
def test_header_is_told_from_data(file, first, features, n):
    splits = csv(file(first + rows()))
    assert splits.features == features
    assert len(splits.train) + len(splits.validation) + len(splits.test) == n


def test_header_may_be_forced(file):
    numbers = "1,2,3\n" + rows()
    assert csv(file(numbers), header=True).features == ("1", "2")
    assert csv(file("a,b\n" + "1,0\n2,1\n" * 10), header=None).features == ("a",)
    with pytest.raises(DataError, match="row 1, column 'column 0' holds 'a', which is not a number"):
        csv(file("a,b,kind\n" + rows()), header=False)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1.0", "2", "01"], ("1", "2")),
        (["b", "a", "10"], ("10", "a", "b")),
        ([" b", "b ", "a"], ("a", "b")),
    ],
)
def test_classes_are_sorted(file, labels, classes):
    text = "".join(f"{i},{labels[i % len(labels)]}\n" for i in range(30))
    assert csv(file(text)).classes == classes


def test_blank_lines_quotes_and_byte_order_mark(tmp_path):
    text = 'a,"b, in m",kind\n\n' + "".join(f'"{i}", {i} ,"{"xy"[i % 2]}"\n\n' for i in range(20))
    splits = csv(write(tmp_path / "t.csv", text, encoding="utf-8-sig"))
    assert splits.features == ("a", "b, in m")
    assert splits.classes == ("x", "y")


GOOD = rows(20)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "the file is empty"),
        ("\n\n", {}, "the file is empty"),
        ("a,b,c\n", {}, "no rows below the header"),
        ("1\n2\n", {}, "got one column"),
        (GOOD + "1,2\n", {}, "row 21 has 2 cells, expected 3"),
        (GOOD + "1,2,3,4\n", {}, "row 21 has 4 cells, expected 3"),
        ("a,b,kind\n" + GOOD + "nan,2,odd\n", {}, "row 22, column 'a' holds a missing value .'nan'."),
        ("a,b,kind\n" + GOOD + "1,,odd\n", {}, "row 22, column 'b' holds a missing value"),
        ("a,b,kind\n" + GOOD + "1,?,odd\n", {}, "column 'b' holds a missing value .'\\?'."),
        ("a,b,kind\n" + GOOD + "1,inf,odd\n", {}, "column 'b' holds inf, which is not finite"),
        ("a,b,kind\n" + GOOD + "1,1e999,odd\n", {}, "not finite"),
        ("a,b,kind\n" + GOOD + "1,red,odd\n", {}, "column 'b' holds 'red', which is not a number"),
        ("a,b,kind\n" + GOOD + "1,1_000,odd\n", {}, "'1_000', which is not a number"),
        ("a,b,kind\n" + GOOD + "x,y,odd\n,NA,odd\n", {}, "row 22.*and 3 more cells"),
        ("a,b,kind\n" + GOOD + "1,2,\n", {}, "row 22 has no label .column 'kind' is ''"),
        ("a,b,kind\n" + GOOD + "1,2,NaN\n", {}, "row 22 has no label"),
        ("a,b,y\n" + rows(20, lambda i: i / 4), {}, "row 3 has the label 0.25.*looks like regression"),
        (rows(20, lambda i: "same"), {}, "holds one class only, 'same'"),
        ("a,b,kind\n" + GOOD, {"label": "kimd"}, "no column named 'kimd'. Did you mean 'kind'"),
        ("a,a,kind\n" + GOOD, {"label": "a"}, "more than one column named 'a'"),
        (GOOD, {"label": 3}, "label column 3 is out of range for 3 columns"),
        (GOOD, {"label": "kind", "header": False}, "'kind' is a name, but the first line is no header"),
        ("1,0\n2,1\n", {}, "too few"),
        (GOOD, {"delimiter": ";"}, "got one column"),
    ],
)
def test_bad_tables(file, text, options, message):
    path = file(text)
    with pytest.raises(DataError, match=message) as caught:
        csv(path, **options)
    assert str(path) in str(caught.value) or "table" in str(caught.value)


@pytest.mark.parametrize("options", [{"test": 0}, {"test": 1.0}, {"validation": 0}, {"validation": 2}])
def test_bad_fractions(file, options):
    with pytest.raises(ValueError, match="expected a fraction between 0 and 1"):
        csv(file(GOOD), **options)


def test_unreadable_tables(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: cannot be read .No such file"):
        csv(tmp_path / "no.csv")
    with pytest.raises(DataError, match="cannot be read"):
        csv(tmp_path)
    (tmp_path / "binary.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match=r"not text in UTF-8 .byte 4."):
        csv(tmp_path / "binary.csv")
    (tmp_path / "nul.csv").write_bytes(b"1,a\n" * 10 + b'"' + b"x" * 200_000)
    with pytest.raises(DataError, match="not a CSV file"):
        csv(tmp_path / "nul.csv")


# --- load -------------------------------------------------------------------------------------------------------------


# --- labels that could be something else ------------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ["-", "NA", "None", "null", "?", "n/a"])
def test_a_label_of_text_may_be_called_as_a_missing_value_is(file, marker):
    text = "a,b,kind\n" + rows(label=lambda i: marker if i % 2 else "ZA")
    with pytest.warns(UserWarning, match=rf"{re.escape(repr(marker))} in column 'kind' is taken for a class"):
        assert set(csv(file(text)).classes) == {marker, "ZA"}
    with pytest.raises(DataError, match="row 3 has no label"):
        csv(file(text), missing=[marker])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(csv(file(text), missing=()).classes) == {marker, "ZA"}


@pytest.mark.parametrize("marker", ["-", "NA", "None", "", "NaN"])
def test_among_numbers_it_is_a_missing_value(file, marker):
    text = "a,b,kind\n" + rows(label=lambda i: marker if i == 7 else i % 2)
    with pytest.raises(DataError, match=f"row 9 has no label .column 'kind' is '{marker}'"):
        csv(file(text))


def test_what_stands_for_no_label_may_be_said(file):
    text = "a,b,kind\n" + rows(label=lambda i: ("odd", "even", "none")[i % 3])
    with pytest.raises(DataError, match="row 4 has no label"):
        csv(file(text), missing="none")
    assert csv(file("a,b,kind\n" + rows(label=lambda i: ("nan", "roti")[i % 2])), missing=()).classes == ("nan", "roti")
    with pytest.raises(DataError, match="row 3 has no label"):  # an empty cell is never one
        csv(file("a,b,kind\n" + rows(label=lambda i: ("x", "")[i % 2])), missing=())


AMOUNTS = {
    "prices": (lambda i: 100 + i, "40 different labels in 40 rows, most of them once"),
    "names": (lambda i: f"name {i}", "40 different labels in 40 rows, most of them once"),
    "most of them once": (lambda i: min(i, 30), "31 different labels in 40 rows"),
}


@pytest.mark.parametrize("case", AMOUNTS)
def test_labels_of_one_row_each_are_no_classes(file, case):
    label, message = AMOUNTS[case]
    with pytest.raises(DataError, match=message + r".*regression"):
        csv(file("a,b,y\n" + rows(label=label)))


def test_whole_numbers_that_may_be_amounts_are_warned_of(file):
    ages = "a,age,y\n" + rows(600, lambda i: 18 + i % 60)
    with pytest.warns(UserWarning, match="60 different whole numbers, from 18 to 77, in 600 rows: .* regression"):
        csv(file(ages))
    with pytest.warns(UserWarning, match="20 different whole numbers, from 0 to 19, in 60 rows"):
        csv(file("a,b,y\n" + rows(60, lambda i: i % 20)))


@pytest.mark.parametrize(
    "label", [lambda i: i % 20, lambda i: 1 + i % 20, lambda i: (3, 5, 8)[i % 3], lambda i: f"c{i % 20}"]
)
def test_codes_of_classes_are_not(file, label):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        csv(file("a,b,y\n" + rows(400, label)))


def test_load_by_name(tmp_path):
    write_mnist(tmp_path / "mnist")
    write_mnist(tmp_path / "fashion-mnist", kind="fashion-mnist")
    assert load("digits", seed=3, validation=0.2).name == "digits"
    assert load("mnist", tmp_path).name == "mnist"
    assert load("fashion-mnist", tmp_path).name == load("fashion_mnist", tmp_path).name == "fashion-mnist"
    assert load("MNIST", tmp_path, validation=0.5).validation.tensors[0].shape == (30, 1, 28, 28)
    with pytest.raises(DataError, match="cifar10: no files found"):
        load("cifar10", tmp_path)


def test_load_a_table(file, tmp_path, monkeypatch):
    path = file("kind,a\n" + "".join(f"{'uv'[i % 2]},{i}\n" for i in range(30)))
    assert load(path, label="kind").classes == ("u", "v")
    assert load(str(path), label=0).features == ("a",)
    assert load("table.csv", tmp_path, label=0).name == "table"
    path.rename(tmp_path / "table.data")
    assert load(tmp_path / "table.data", label=0).name == "table"
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        load("absent.csv", tmp_path)
    with pytest.raises(DataError, match="only mnist, fashion-mnist, cifar10 can be downloaded"):
        load("table.csv", download=True)
    with pytest.raises(TypeError, match="columns"):
        load(tmp_path / "table.data", columns=3)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digit", "Did you mean 'digits'"), ("minst", "Did you mean 'mnist'"), ("imagenet22", "Known: cifar10, digits")],
)
def test_load_unknown(name, hint):
    with pytest.raises(DataError, match=hint):
        load(name)


def test_load_refuses_options_of_tables():
    with pytest.raises(TypeError, match="label is for CSV files, got the data set 'digits'"):
        load("digits", label="x")
