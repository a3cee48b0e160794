"""Tables as people have them, made after real ones, small and from a seed: each is (file name, bytes, target)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

WORDS = "the delivery was late but staff helped me and I would order again from this shop for my family".split()


def _lines(header, rows, separator=","):
    return separator.join(header) + "\n" + "".join(separator.join(map(str, row)) + "\n" for row in rows)


def _german(value):
    return f"{value:,.2f}".replace(",", "_").replace(".", ",").replace("_", ".")


def bank(n=120, seed=0):
    """A bank's export: lines above the header, semicolons, decimal commas, dots between thousands, Latin-1."""
    rng = np.random.default_rng(seed)
    kinds, rows = ["Gehalt", "Miete", "Lebensmittel"], []
    for i in range(n):
        kind = kinds[i % 3]
        amount = {"Gehalt": 2500, "Miete": -900, "Lebensmittel": -60}[kind] * rng.uniform(0.8, 1.3)
        rows.append(
            (
                f"{i % 28 + 1:02d}.{i % 12 + 1:02d}.2023",
                f"DE{rng.integers(10**9)}",
                "Überweisung" if amount < -500 else "Karte",
                _german(amount),
                "EUR",
                kind,
            )
        )
    text = "Kontoumsätze;Girokonto\nZeitraum:;01.01.2023 - 31.12.2023\n\n"
    text += _lines(("Buchungstag", "IBAN", "Vorgang", "Betrag (€)", "Währung", "Kategorie"), rows, ";")
    return "bank.csv", text.replace("€", "EUR").encode("latin-1"), "Kategorie"


def survey(n=150, seed=0):
    """A survey: quoted headers that are questions, free text with commas and line breaks, grades, answers left out."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        again = int(rng.integers(2))
        comment = " ".join(rng.choice(WORDS, 9)) + (",\nreally" if i % 7 == 0 else ", thanks")
        grade = "" if i % 11 == 0 else rng.integers(4, 6) if again else rng.integers(1, 4)
        age = rng.choice(["18-29", "30-49", "50+", "n/a"])
        rows.append((i + 1000, f'"{comment}"', grade, age, "Yes" if again else "No"))
    return (
        "survey.csv",
        _lines(
            (
                "Respondent ID",
                '"Any comments, please?"',
                '"How did you like it (1-5)?"',
                "Age group",
                "Would you order again?",
            ),
            rows,
        ).encode(),
        "Would you order again?",
    )


def sensor(n=200, seed=0):
    """A sensor's log: a time in every row, gaps, words for failures; the target is a number."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        hour = i % 24
        heat = 20 + 6 * np.sin(hour / 24 * 2 * np.pi) + rng.normal(0, 0.3)
        wet = "ERR" if i % 67 == 3 else "" if i % 9 == 0 else f"{60 - heat / 2 + rng.normal():.1f}"
        rows.append(
            (
                f"2024-03-{i // 24 + 1:02d} {hour:02d}:00:00",
                "NaN" if i % 13 == 0 else f"{1000 + rng.normal():.2f}",
                wet,
                3.3,
                f"{heat:.2f}",
            )
        )
    return (
        "sensor.tsv",
        _lines(("timestamp", "pressure", "humidity", "voltage", "temperature"), rows, "\t").encode(),
        "temperature",
    )


def passengers(n=180, seed=0):
    """Passengers of a ship: names with commas, tickets, cabins mostly missing, a target of 0 and 1."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        woman = int(rng.integers(2))
        lived = int(rng.random() < (0.9 if woman else 0.1))
        name = f'"{rng.choice(WORDS).title()}{i}, {"Mrs" if woman else "Mr"}. {rng.choice(WORDS).title()}"'
        age = "" if i % 5 == 0 else f"{rng.uniform(1, 70):.1f}"
        cabin = f"C{rng.integers(150)}" if i % 4 == 0 else ""
        rows.append(
            (
                i + 1,
                lived,
                rng.integers(1, 4),
                name,
                "female" if woman else "male",
                age,
                f"A/{rng.integers(10**5)}",
                f"{rng.lognormal(3, 1):.4f}",
                cabin,
                rng.choice(["S", "C", "Q"]),
            )
        )
    header = ("PassengerId", "Survived", "Pclass", "Name", "Sex", "Age", "Ticket", "Fare", "Cabin", "Embarked")
    return "titanic.csv", _lines(header, rows).encode(), "Survived"


def unicode_headers(n=100, seed=0):
    """Headers and classes in other scripts, with spaces around them."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    rows = [
        (f"{a:.3f}", f"{b:.3f}", "東京" if i % 3 else "大阪", "да" if a + b > 0 else "нет")
        for i, (a, b) in enumerate(x)
    ]
    return "unicode.csv", _lines((" größe ", "температура", "都市", "ответ"), rows).encode(), "ответ"


def with_bom(n=100, seed=0):
    """As spreadsheet programs save it: a byte-order mark, Windows' line ends, separators at the end of each line."""
    rng = np.random.default_rng(seed)
    rows = [(f"{a:.2f}", f"{a * 3 + b:.2f}", "") for a, b in rng.normal(size=(n, 2))]
    return "bom.csv", b"\xef\xbb\xbf" + _lines(("x", "y", ""), rows, ";").replace("\n", "\r\n").encode(), "y"


def with_ids(n=120, seed=0):
    """Keys of three kinds, and a date of birth as Americans write it."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        spent = rng.lognormal(4, 1)
        code = "".join(rng.choice(list("abcdef0123456789"), 12))
        rows.append(
            (
                i,
                f"{code}-{i}",
                10**5 + i * 7919 % 900001,
                f"{i % 12 + 1}/{i % 28 + 1}/{1950 + i % 50}",
                f'"${spent:,.2f}"',
                f"{i % 7 * 10} %",
                "gold" if spent > 55 else "basic",
            )
        )
    return "ids.csv", _lines(("", "uuid", "customerId", "born", "spent", "discount", "level"), rows).encode(), "level"


def header_again(n=100, seed=0):
    """Files joined one after another: the header stands in the middle too; numbers as headers; a name twice."""
    rng = np.random.default_rng(seed)
    header = ("2019", "2020", "2020", "grew")
    rows = [(f"{a:.1f}", f"{b:.1f}", f"{c:.1f}", "up" if b > a else "down") for a, b, c in rng.normal(10, 3, (n, 3))]
    half = _lines(header, rows[: n // 2])
    return "joined.csv", (half + _lines(header, rows[n // 2 :])).encode(), "grew"


def wide(n=60, columns=2000, seed=0):
    """Many more columns than rows."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, columns))
    rows = [(*(f"{v:.2f}" for v in row), "case" if row[:20].sum() > 0 else "control") for row in x]
    return "wide.csv", _lines((*(f"gene_{i}" for i in range(columns)), "status"), rows).encode(), "status"


def long(n=1_000_000, seed=0):
    """Very many rows."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 1000, (n, 3))
    rows = (f"{a / 10},{b},{'abcd'[c % 4]},{a / 5 + b / 7:.2f}\n" for a, b, c in x.tolist())
    return "long.csv", ("amount,count,kind,price\n" + "".join(rows)).encode(), "price"


GOOD: list[Callable[..., tuple[str, bytes, str]]] = [
    bank, survey, sensor, passengers, unicode_headers, with_bom, with_ids, header_again, wide, long,
]  # fmt: skip

BAD = {
    "empty.csv": (b"", "y", "the file is empty"),
    "blank.csv": (b"\n \n", "y", "the file is empty"),
    "header.csv": (b"x,y\n", "y", "no rows below the header"),
    "no_target.csv": (b"x,y\n1,2\n2,3\n", "z", "no column named 'z'"),
    "one_row.csv": (b"x,y\n1,a\n", "y", "one class only"),
    "few.csv": (b"x,y\n1,a\n2,b\n3,a\n", "y", "too few to train"),
    "one_class.csv": (b"x,y\n" + b"".join(b"%d.5,a\n" % i for i in range(40)), "y", "one class only, 'a'"),
    "one_value.csv": (b"x,y\n" + b"".join(b"%d.5,2.5\n" % i for i in range(40)), "y", "one"),
    "names.csv": (
        b"x,y\n" + b"".join(b"%d.5,name%d\n" % (i % 9, i) for i in range(40)),
        "y",
        "no classes, but names or ids",
    ),
    "nothing.csv": (
        b"x,y\n" + b"".join(b"7,%d\n" % (i % 2) for i in range(40)),
        "y",
        "no column is left to learn from",
    ),
    "untold.csv": (b"x,y\n" + b"".join(b"%d.5,\n" % i for i in range(40)), "y", "is empty, and the target is in it"),
    "days.csv": (
        b"x,y\n" + b"".join(b"%d.5,2024-01-%02d\n" % (i % 5, i % 28 + 1) for i in range(40)),
        "y",
        "holds dates",
    ),
    "junk.csv": (bytes(range(256)) * 8, "y", "is no text"),
    "photo.csv": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(200)), "y", "is no text"),
    "page.csv": (b"<!DOCTYPE html>\n<html><body>Please log in, or register</body></html>\n", "y", "is a web page"),
    "data.csv": (b'{"rows": [[1, 2], [3, 4]]}\n', "y", "is JSON"),
    "book.csv": (b"PK\x03\x04" + bytes(40), "y", "Excel"),
    "book.xlsx": (b"no book", "y", "no readable .xlsx file"),
    "one_column.csv": (b"x\n" + b"".join(b"%d\n" % i for i in range(40)), "x", "found one column only"),
    "ragged.csv": (b"x,y\n" + b"1,2\n" * 20 + b"1,2,3\n" * 15, "y", "cells, expected"),
}
"""Files that cannot be trained on: their bytes, the target, and what is said of them."""
