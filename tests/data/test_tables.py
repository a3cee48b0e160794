"""kobai.data.table: files and DataFrames as people have them, and load() by name."""

import json
import re
import sys
import warnings

import numpy as np
import pytest

import kobai
import messy_tables
from data.builders import write_mnist
from kobai.data import Preparation, csv, load, table
from kobai.data.tables.kinds import useless
from kobai.data.tables.values import Parser, as_text
from kobai.errors import DataError

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(determines the target|rows are in the training rows|few training rows)"
)


def rows(n=40, label=lambda i: "odd" if i % 2 else "even", sep=","):
    return "".join(f"{(i * 13) % 17}{sep}{(i * 7) % 11}.5{sep}{label(i)}\n" for i in range(n))


@pytest.fixture
def file(tmp_path):
    def write(text, name="table.csv", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
        return path

    return write


def inputs(splits):
    return np.concatenate([part.tensors[0].numpy() for part in (splits.train, splits.validation, splits.test)])


def targets(splits):
    return np.concatenate([part.tensors[1].numpy() for part in (splits.train, splits.validation, splits.test)])


# --- tables of people ---------------------------------------------------------------------------------------------------

EXPECTED = {
    "bank": ("classification", ["read as cp1252", "first 3 lines are no rows", "decimal commas", "IBAN: left out"]),
    "survey": ("classification", ["Respondent ID: left out, it numbers", "comments, please?: left out, free text"]),
    "sensor": ("regression", ["humidity: 3 cells are no number ('ERR')", "voltage: left out, the same in every row"]),
    "passengers": ("classification", ["PassengerId: left out", "Name, Ticket: left out", "Cabin: left out"]),
    "unicode_headers": ("classification", ["ответ holds text: classes"]),
    "with_bom": ("regression", ["y holds numbers with fractions: a regression"]),
    "with_ids": ("classification", ["column 0: left out, it numbers", "uuid: left out", "customerId: left out, an id"]),
    "header_again": ("classification", ["header stands in 1 row below", "more than one column is called '2020'"]),
    "wide": ("classification", []),
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_messy_tables_are_read(file, kind):
    name, content, target = getattr(messy_tables, kind)(**{"columns": 200} if kind == "wide" else {})
    path = file(content, name)
    splits = table(path, target)
    task, words = EXPECTED[kind]
    assert splits.preparation.task == task
    for word in words:
        assert any(word in note for note in splits.notes), (word, splits.notes)
    x = inputs(splits)
    assert np.isfinite(x).all()
    kept = Preparation.from_dict(json.loads(json.dumps(splits.preparation.to_dict())))
    assert kept == splits.preparation
    again, _ = kept(path)
    assert {row.tobytes() for row in again} == {row.tobytes() for row in x}


@pytest.mark.thorough
def test_a_million_rows(file):
    name, content, target = messy_tables.long()
    splits = table(file(content, name), target)
    assert (len(splits.train), splits.features[:2]) == (720_000, ("amount", "count"))


def test_values_of_messy_tables(file):
    """Numbers, dates and categories are what they say."""
    name, content, target = messy_tables.with_ids()
    splits = table(file(content, name), target, columns=["spent", "discount", "born"])
    spent, discount, born = splits.preparation.columns
    plain = [float(v.replace(",", "")) for v in re.findall(r'"\$([\d,.]+)"', content.decode())]
    assert abs(spent.shift - np.mean(plain)) < 0.2 * np.std(plain)
    assert (discount.kind, born.kind, born.parts) == ("number", "date", ("month", "weekday"))
    name, content, target = messy_tables.bank()
    amounts = table(file(content, name), "Betrag (EUR)", ignore=["Kategorie"]).preparation
    assert (amounts.task, 400 < amounts.shift < 700, amounts.scale > 1000) == ("regression", True, True)


@pytest.mark.parametrize("name", messy_tables.BAD)
def test_what_is_no_table_is_refused(file, name):
    content, target, message = messy_tables.BAD[name]
    path = file(content, name)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        table(path, target)
    assert str(caught.value).startswith(str(path))


# --- cells --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", " 2.5 ", "-3e2", ""], [1, 2.5, -300, np.nan]),
        (["1,5", "2", "-0,25", "NA"], [1.5, 2, -0.25, np.nan]),
        (["1.234,5", "12.000", "3,5"], [1234.5, 12000, 3.5]),
        (["1,234", "12,000,000", "5"], [1234, 12e6, 5]),
        (["1,234.5", "2", "3"], [1234.5, 2, 3]),
        (["€ 3.50", "4 EUR", "$5"], [3.5, 4, 5]),
        (["10 %", "20%", "?"], [10, 20, np.nan]),
        (["−1", "2", "-"], [-1, 2, np.nan]),
        (["1'000", "2 000", "3"], [1000, 2000, 3]),
        (["inf", "1", "2"], [np.nan, 1, 2]),
    ],
)
def test_numbers_in_many_spellings(cells, values):
    import pandas as pd

    np.testing.assert_array_equal(Parser()("x", pd.Series(cells)), values)


@pytest.mark.parametrize(
    ("cells", "first"),
    [
        (["2024-02-29", "2024-03-01"], "2024-02-29"),
        (["2024-02-29T13:05:00Z", "2024-03-01T00:00:00Z"], "2024-02-29T13:05"),
        (["29.02.2024 13:05", "01.03.2024 00:00"], "2024-02-29T13:05"),
        (["31/12/99", "01/02/03"], "1999-12-31"),
        (["2/29/2024", "3/1/2024"], "2024-02-29"),
        (["29 Feb 2024", "1 Mar 2024"], "2024-02-29"),
        (["2024-02", "2024-03"], "2024-02-01"),
    ],
)
def test_dates_in_many_spellings(cells, first):
    import pandas as pd

    values = Parser()("x", pd.Series([*cells, ""]))
    assert values[0] == np.datetime64(first)
    assert np.isnat(values[-1])


@pytest.mark.parametrize("cells", [["1_000", "a"], ["12 Main St", "7 Oak Ave"], ["v1.2", "v1.3"], ["1-2", "3-4"]])
def test_text_stays_text(cells):
    import pandas as pd

    assert Parser()("x", pd.Series(cells * 5)).tolist() == cells * 5


# --- frames -------------------------------------------------------------------------------------------------------------


def a_frame():
    import pandas as pd

    n = 60
    return pd.DataFrame(
        {
            "amount": [None if i % 7 == 0 else i * 1.5 % 11 for i in range(n)],
            "hue": pd.Categorical([("red", "blue", None)[i % 3] for i in range(n)]),
            "member": [i % 4 == 0 for i in range(n)],
            "when": pd.date_range("2024-01-01", periods=n, freq="7h"),
            "y": [f"{'ab'[i % 2]}" for i in range(n)],
        }
    )


@pytest.mark.parametrize("how", ["csv", "parquet", "xlsx", "polars", "arrow", "dict"])
def test_all_forms_of_a_table_are_one_table(tmp_path, how):
    frame = a_frame()
    expected = table(frame, "y")
    if how == "csv":
        frame.to_csv(source := tmp_path / "t.csv", index=False)
    elif how == "parquet":
        frame.to_parquet(source := tmp_path / "t.parquet")
    elif how == "xlsx":
        frame.to_excel(source := tmp_path / "t.xlsx", index=False)
    elif how == "dict":
        source = {name: frame[name].tolist() for name in frame}
    else:
        import pyarrow

        arrow = pyarrow.Table.from_pandas(frame)
        source = arrow if how == "arrow" else __import__("polars").from_arrow(arrow)
    found = table(source, "y")
    assert found.features == expected.features
    np.testing.assert_allclose(inputs(found), inputs(expected), atol=1e-6)
    answered, notes = expected.preparation(source)
    assert (answered.shape, notes) == ((60, len(expected.features)), [])


def test_what_is_no_frame_is_a_type_error():
    with pytest.raises(TypeError, match="expected a path, a dict of columns, or a DataFrame"):
        table(3, "y")


@pytest.mark.parametrize(
    ("module", "name", "words"),
    [("pandas", "t.csv", "pip install 'kobai\\[data\\]'"),
     ("openpyxl", "t.xlsx", "pip install openpyxl"), ("pyarrow", "t.parquet", "pip install pyarrow")],
)  # fmt: skip
def test_a_missing_library_is_named_with_its_install_line(file, monkeypatch, module, name, words):
    path = file(rows(), name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=f"needs {module}. Install it: {words}"):
        table(path)


# --- targets ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "task", "why"),
    [
        (lambda i: "ab"[i % 2], "classification", "holds text: classes"),
        (lambda i: i % 2 / 2, "classification", "2 different numbers: classes"),
        (lambda i: i % 5, "classification", "5 whole numbers, each 8 times on average: classes"),
        (lambda i: i % 5 + 0.5, "regression", "with fractions: a regression"),
        (lambda i: 100 + i % 23, "regression", "23 different whole numbers in 40 rows: a regression"),
    ],
)
def test_the_task_is_told_with_its_reason(file, label, task, why):
    splits = csv(file("a,b,y\n" + rows(label=label)))
    assert splits.preparation.task == task
    assert any(why in note for note in splits.notes)
    x, t = splits.train.tensors
    assert (t.dtype, t.shape) == (
        (kobai.int64, (len(x),)) if task == "classification" else (kobai.float32, (len(x), 1))
    )
    other = "regression" if task == "classification" else "classification"
    if "text" not in why:
        assert table(file("a,b,y\n" + rows(label=lambda i: label(i // 2))), task=other).preparation.task == other


def test_a_regression_is_of_standardised_values(file):
    splits = table(file("a,b,y\n" + rows(label=lambda i: 100 + (i * 5) % 23 / 2)), "y")
    assert abs(splits.train.tensors[1].numpy().mean()) < 1e-6
    values = targets(splits)[:, 0] * splits.preparation.scale + splits.preparation.shift
    assert sorted(np.round(values, 3)) == sorted(100 + (i * 5) % 23 / 2 for i in range(40))


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
    assert csv(file("a,b,y\n" + rows(label=lambda i: labels[i % len(labels)]))).classes == classes


@pytest.mark.parametrize("marker", ["-", "NA", "None", "null", "?", "n/a"])
def test_a_class_may_be_called_as_a_missing_value_is(file, marker):
    path = file("a,b,kind\n" + rows(label=lambda i: marker if i % 2 else "ZA" if i % 4 else "XA"))
    with pytest.warns(UserWarning, match=rf"{re.escape(repr(marker))} in column 'kind' is taken for a class"):
        assert set(csv(path).classes) == {marker, "ZA", "XA"}
    splits = csv(path, missing=[marker])
    assert splits.classes == ("XA", "ZA")
    assert "20 of 40 rows have no kind: left out" in splits.notes


@pytest.mark.parametrize("marker", ["-", "NA", "None", "", "NaN"])
def test_among_numbers_it_is_a_missing_value(file, marker):
    splits = csv(file("a,b,kind\n" + rows(label=lambda i: marker if i == 7 else i % 2)))
    assert (splits.classes, "1 of 40 rows have no kind: left out" in splits.notes) == (("0", "1"), True)


@pytest.mark.parametrize("label", ["kind", 0, -3, "0", "Kind "])
def test_target_by_name_or_place(file, label):
    text = "kind,a,b\n" + "".join(f"{'xyz'[i % 3]},{i % 7},{i * i % 13}\n" for i in range(30))
    splits = csv(file(text), label=label)
    assert (splits.classes, splits.features, splits.label) == (("x", "y", "z"), ("a", "b"), "kind")


def test_target_out_of_range(file):
    with pytest.raises(DataError, match="target column 3 is out of range for 3 columns"):
        csv(file(rows()), label=3)
    with pytest.raises(DataError, match=r"no column named 'kimd', for the target. Did you mean 'kind'"):
        csv(file("a,b,kind\n" + rows()), label="kimd")


# --- preparation --------------------------------------------------------------------------------------------------------


def test_fitted_on_the_training_rows_alone(file):
    """Whatever stands in the other rows: what is kept is the same."""
    text = [row.split(",") for row in ("a,b,y\n" + rows(200)).splitlines()]
    splits = table(file("\n".join(map(",".join, text))))
    train = splits.train.tensors[0].numpy()
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-6)
    a = splits.preparation.columns[0]
    raw = np.array([float(row[0]) for row in text[1:]])
    tested = {row.tobytes() for row in splits.test.tensors[0].numpy()}
    whole, _ = splits.preparation(file("\n".join(map(",".join, text))))
    for i, row in enumerate(whole):
        if row.tobytes() in tested and row.tobytes() not in {r.tobytes() for r in train}:
            text[i + 1][0] = "999"
    other = table(file("\n".join(map(",".join, text)))).preparation.columns[0]
    assert (a.shift, a.scale, a.fill) == (other.shift, other.scale, other.fill)
    assert raw.min() < a.shift < raw.max()


def test_gaps_are_filled_by_the_median_and_told(file):
    text = "a,hue,y\n" + "".join(
        f"{'' if i % 5 == 0 else i % 7},{('red', 'blue', '')[i % 3]},{'pq'[i % 2]}\n" for i in range(60)
    )
    splits = table(file(text), "y")
    assert splits.features == ("a", "a is missing", "hue = blue", "hue = red", "hue is missing")
    a = splits.preparation.columns[0]
    x = inputs(splits)
    assert x[:, 1].sum() == 12
    np.testing.assert_allclose(x[x[:, 1] == 1, 0], (a.fill - a.shift) / a.scale, rtol=1e-5)
    assert (x[:, 2:].sum(axis=1) == 1).all()
    dropped = table(file(text), "y", missing="drop")
    assert len(dropped.train) + len(dropped.validation) + len(dropped.test) == 32
    assert dropped.features == ("a", "hue = blue", "hue = red")


def test_columns_that_teach_nothing_are_left_out_unless_asked_for(file):
    text = "id,same,y\n" + "".join(f"{i},7,{i % 2}\n" for i in range(40))
    with pytest.raises(DataError, match=r"no column is left to learn from: id \(it numbers the rows\); same"):
        table(file(text), "y")
    assert table(file(text), "y", columns=["id", "same"]).features == ("id",)
    with pytest.raises(DataError, match=r"no column named 'ide', for the inputs. Did you mean 'id'"):
        table(file(text), "y", columns=["ide"])


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("n", np.arange(50.0), "numbers the rows"),
        ("n", np.arange(50.0)[::-1], "numbers the rows"),
        ("customer_id", np.arange(50.0) * 7 % 101, "an id"),
        ("age", np.arange(50.0) * 7 % 101, ""),
        ("email", np.array([f"{i}@x.org" for i in range(50)], dtype=object), "names or ids"),
        ("city", np.array(["Rome", "Oslo"] * 25, dtype=object), ""),
        ("note", np.array(["all of it was fine", "not so good, I think"] * 25, dtype=object), ""),
        ("gone", np.full(50, np.nan), "empty"),
    ],
)
def test_kinds_of_columns(name, values, why):
    assert why in useless(name, values)
    assert bool(useless(name, values)) == bool(why)


def test_unknown_categories_and_missing_columns_are_answered(file):
    text = "hue,size,y\n" + "".join(f"{('red', 'blue')[i % 2]},{i % 7},{'pq'[i % 3 == 0]}\n" for i in range(60))
    prepared = table(file(text), "y").preparation
    x, notes = prepared({"size": [3.0, None], "HUE": ["green", "red"], "more": [1, 2]})
    assert x[0, :2].tolist() == [0, 0]
    assert notes == ["hue: not seen in training: green", "not used, as the model was not trained on it: more"]
    assert x[1, 2] == np.float32((prepared.columns[1].fill - prepared.columns[1].shift) / prepared.columns[1].scale)
    with pytest.raises(DataError, match="no column named 'size', which the model was trained on"):
        prepared({"hue": ["red"]})
    with pytest.raises(DataError, match=r"column 'size' holds text \('big'\), and numbers in training"):
        prepared({"hue": ["red"], "size": ["big"]})


def test_a_table_without_header_is_known_by_places(file):
    prepared = csv(file("".join(f"{'uv'[i % 2]},{i % 5},{i % 3}\n" for i in range(40))), label=0).preparation
    assert prepared.named is False
    both, _ = prepared(file("u,1,2\nv,3,1\n"))
    without, _ = prepared(file("1,2\n3,1\n"))
    np.testing.assert_array_equal(both, without)
    with pytest.raises(DataError, match="expected 3 columns, or 2 without the target, got 4"):
        prepared(file("1,2,3,4\n5,6,7,8\n"))


def test_as_text_writes_whole_numbers_plainly():
    assert as_text(np.array([1.0, np.nan, 2.5])).tolist() == ["1", None, "2.5"]


# --- reading text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
def test_separator_is_found(file, sep):
    assert csv(file(f"a{sep}b{sep}kind\n" + rows(sep=sep))).features == ("a", "b")


def test_given_separator(file):
    assert csv(file(rows(sep=":")), delimiter=":").input_shape == (2,)
    with pytest.raises(DataError, match="found one column only"):
        csv(file(rows()), delimiter=";")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1251"])
def test_encodings_are_found(file, encoding):
    words = ("добрый день", "вечер наступил") if encoding == "cp1251" else ("Grün für Mäuse", "Äpfel größer")
    head = "цвет и размер" if encoding == "cp1251" else "Farbtöne"
    text = f"{head},n,y\n" + "".join(f"{words[i % 2]},{i % 7},{i % 3}\n" for i in range(40))
    features = table(file(text, encoding=encoding), "y").features
    assert features == (f"{head} = {sorted(words)[0]}", f"{head} = {sorted(words)[1]}", "n")


@pytest.mark.parametrize(
    ("first", "features"),
    [("", ("column 0", "column 1")), ("x,y,label\n", ("x", "y")), ("x,y,1\n", ("x", "y"))],
)
def test_header_is_told_from_data(file, first, features):
    splits = csv(file(first + rows()))
    assert splits.features == features
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 40


def test_numbers_are_a_header_if_the_target_is_among_them_or_it_is_said(file):
    assert csv(file("1,2,3\n" + rows()), header=True).features == ("1", "2")
    assert csv(file("1,2,3\n" + rows()), label="3").features == ("1", "2")


def test_blank_lines_quotes_and_rows_of_other_lengths(file):
    text = (
        'a,"b, in m",kind\n\n'
        + "".join(f'"{i % 7}", {i % 5} ,"{"xy"[i % 2]}"\n\n' for i in range(120))
        + "1,2,x,9\n1\n"
    )
    splits = csv(file(text))
    assert (splits.features, splits.classes) == (("a", "b, in m"), ("x", "y"))
    notes = " ".join(splits.notes)
    assert "1 line has cells too many (243): left out" in notes
    assert "1 of 121 rows have no kind: left out" in notes


@pytest.mark.parametrize("row", ["{a},{b},{kind},", "r{i},{a},{b},{kind}"])
def test_a_header_of_one_cell_less(file, row):
    """By separators at the ends of rows, and by names of rows, as R writes them."""
    lines = (row.format(i=i, a=i % 7, b=i % 5, kind="xy"[i % 2]) for i in range(40))
    assert csv(file("a,b,kind\n" + "\n".join(lines)), label="kind").features == ("a", "b")


def test_unreadable_tables(tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: cannot be read .No such file"):
        csv(tmp_path / "no.csv")
    with pytest.raises(DataError, match="cannot be read"):
        csv(tmp_path)


# --- parts and doubts ---------------------------------------------------------------------------------------------------


def test_the_test_split_does_not_depend_on_the_seed(file):
    path = file("a,b,kind\n" + rows())
    a, b, again = csv(path, seed=1), csv(path, seed=2), csv(path, seed=1)
    assert kobai.equal(a.test.tensors[1], b.test.tensors[1])
    assert kobai.equal(a.train.tensors[0], again.train.tensors[0])
    assert not np.array_equal(a.validation.tensors[0].numpy(), b.validation.tensors[0].numpy())


@pytest.mark.parametrize("seed", [-1, 1.5, None, True])
def test_seeds_are_checked(file, seed):
    with pytest.raises(ValueError, match="expected seed as an integer >= 0, got"):
        csv(file(rows()), seed=seed)


@pytest.mark.parametrize("options", [{"test": 0}, {"test": 1.0}, {"validation": 0}, {"validation": 2}])
def test_bad_fractions(file, options):
    with pytest.raises(ValueError, match="expected a fraction between 0 and 1"):
        csv(file(rows()), **options)


def test_groups_stay_together_and_time_goes_forward(file):
    text = "who,day,x,y\n" + "".join(
        f"p{i % 12},2024-{i // 28 + 1:02d}-{i % 28 + 1:02d},{i % 12},{i % 5 + 0.5}\n" for i in range(120)
    )
    by_group = table(file(text), "y", group="who")
    assert not any(name.startswith("who") for name in by_group.features)
    at = by_group.features.index("x")
    seen = [set(part.tensors[0][:, at].tolist()) for part in (by_group.train, by_group.validation, by_group.test)]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]
    by_time = table(file(text), "y", order="day")
    at = by_time.features.index("day")
    train, held, tested = (part.tensors[0][:, at].numpy() for part in (by_time.train, by_time.validation, by_time.test))
    assert train.max() < held.min() <= held.max() < tested.min()
    with pytest.raises(DataError, match="column 'who' holds text, and an order needs dates or numbers"):
        table(file(text), "y", order="who")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (rows(40) * 3, r"of the 24 test rows are in the training rows too"),
        (
            "".join(f"{i * 7 % 31},{('yes', 'no')[i % 2]},{i % 2}\n" for i in range(80)),
            "column 'b' determines the target",
        ),
        ("".join(f"{i * 7 % 31},{i * 11 % 83},{i * 11 % 83 * 1.8 + 32}\n" for i in range(80)), "column 'b' determines"),
        (
            "".join(f"{i % 7},{i % 5},{100 + i}\n" for i in range(40)),
            "column 'y' is the target, and it numbers the rows",
        ),
        (rows(200, lambda i: "rare" if i % 15 == 0 else "usual"), r"classes are uneven: 93 % of the rows are usual"),
        (rows(200, lambda i: "rare" if i % 50 == 0 else "usual"), r"few training rows of rare \(least 3\)"),
    ],
)
def test_doubts_are_warnings(file, text, words):
    with pytest.warns(UserWarning, match=words):
        table(file("a,b,y\n" + text), "y")


@pytest.mark.filterwarnings("default")
def test_nothing_is_doubtful_about_a_sound_table(file):
    rng = np.random.default_rng(0)
    text = "a,b,y\n" + "".join(
        f"{a:.3f},{b:.3f},{'up' if a + b > 0 else 'down'}\n" for a, b in rng.normal(size=(100, 2))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table(file(text), "y")


# --- load ---------------------------------------------------------------------------------------------------------------


def test_load_by_name(tmp_path):
    write_mnist(tmp_path / "mnist")
    write_mnist(tmp_path / "fashion-mnist", kind="fashion-mnist")
    assert load("digits", seed=3, validation=0.2).name == "digits"
    assert load("mnist", tmp_path).name == "mnist"
    assert load("fashion-mnist", tmp_path).name == load("fashion_mnist", tmp_path).name == "fashion-mnist"
    assert load("MNIST", tmp_path, validation=0.5).validation.tensors[0].shape == (30, 1, 28, 28)
    with pytest.raises(DataError, match="cifar10: no files found"):
        load("cifar10", tmp_path)


def test_load_a_table(file, tmp_path):
    path = file("kind,a\n" + "".join(f"{'uv'[i % 2]},{i % 7}\n" for i in range(30)))
    assert load(path, target="kind").classes == ("u", "v")
    assert load(str(path), target=0).features == ("a",)
    assert load("table.csv", tmp_path, target=0).name == "table"
    path.rename(tmp_path / "table.data")
    assert load(tmp_path / "table.data", target=0).name == "table"
    with pytest.raises(DataError, match=r"absent\.csv: cannot be read"):
        load("absent.csv", tmp_path)
    with pytest.raises(DataError, match="only mnist, fashion-mnist, cifar10 can be downloaded"):
        load("table.csv", download=True)


@pytest.mark.parametrize(
    ("name", "hint"),
    [("digit", "Did you mean 'digits'"), ("minst", "Did you mean 'mnist'"), ("imagenet22", "Known: cifar10, digits")],
)
def test_load_unknown(name, hint):
    with pytest.raises(DataError, match=hint):
        load(name)


def test_load_refuses_options_of_tables():
    with pytest.raises(TypeError, match="target is for tables, got the data set 'digits'"):
        load("digits", target="x")
