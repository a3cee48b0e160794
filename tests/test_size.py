"""How large ``src/`` is: lines of code under the cap in pyproject.toml, no long files, no long functions.

A line of code is one that holds more than comments and is in no docstring. ``long.txt`` lists the files and functions that
were too long when this was begun; entries come off it, or shrink (``pytest --freeze`` writes that down), and none is added.
"""

from __future__ import annotations

import ast
import functools
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).parent / "frozen" / "long.txt"
FILE, FUNCTION = 450, 60
"""Most lines of a file, and most lines of code of a function."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def code_lines(text: str, tree: ast.Module) -> set[int]:
    """Numbers of the lines that hold code: neither blank nor a comment nor of a docstring."""
    held = {i for i, line in enumerate(text.split("\n"), 1) if (bare := line.strip()) and not bare.startswith("#")}
    docstrings: list[ast.AST] = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.JoinedStr)) and node.end_lineno > node.lineno:
            held.update(_lines(node))  # its blank lines, and what looks like comments in it, are text
        elif (
            isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS))
            and ast.get_docstring(node, clean=False) is not None
        ):
            docstrings.append(node.body[0])
    return held.difference(*map(_lines, docstrings))


def _lines(node: ast.AST) -> range:
    return range(node.lineno, node.end_lineno + 1)


def long_ones(path: str, text: str, tree: ast.Module, code: set[int]) -> dict[str, int]:
    """The file, if it is too long, and its functions that are, with their lengths."""
    found = {}
    if (lines := len(text.splitlines())) > FILE:
        found[path] = lines

    def visit(node: ast.AST, name: str) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, (ast.ClassDef, *FUNCTIONS))
            inner = f"{name}.{child.name}".lstrip(".") if named else name
            if isinstance(child, FUNCTIONS) and len(_lines(child)) > FUNCTION:
                length = len(code.intersection(_lines(child)))
                if length > FUNCTION:
                    found[f"{path}:{inner}"] = length
            visit(child, inner)

    visit(tree, "")
    return found


@functools.cache
def measured() -> tuple[int, dict[str, int]]:
    """Lines of code of the package; what is too long in it."""
    package, held, found = ROOT / "src" / "kobai", 0, {}
    for file in package.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        code = code_lines(text, tree)
        held += len(code)
        found |= long_ones(file.relative_to(package).as_posix(), text, tree, code)
    return held, found


def listed() -> dict[str, int]:
    entries = (line.rsplit(" ", 1) for line in LIST.read_text(encoding="utf-8").splitlines())
    return {name: int(length) for name, length in entries}


def test_the_code_stays_under_its_cap():
    cap = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["kobai"]["code-lines"]
    held, _ = measured()
    assert held <= cap, (
        f"src/ has {held:,} lines of code, {held - cap:,} more than [tool.kobai] in pyproject.toml allows: "
        "raise it only with a reason in the commit"
    )


def test_long_files_and_functions_become_fewer(request):
    (_, now), before = measured(), listed()
    if request.config.getoption("--freeze"):
        before = {name: min(length, now[name]) for name, length in before.items() if name in now}
        LIST.write_text("".join(f"{name} {length}\n" for name, length in sorted(before.items())), encoding="utf-8")
    grown = {name: length for name, length in now.items() if length > before.get(name, 0)}
    assert not grown, (
        f"files over {FILE} lines, or functions over {FUNCTION} lines of code, not in {LIST.name} at that length: {grown}. "
        "Part them; what was only moved takes its entry along"
    )
    shorter = {name for name, length in before.items() if now.get(name, 0) < length}
    assert not shorter, f"shorter now: {sorted(shorter)}. Write that down: python -m pytest tests/test_size.py --freeze"


TEXT = '''"""Of the module."""

x = [
    # none
    1,
]  # end
y = f"""
# text

{x}"""


class A:
    """Of the class,

    in three lines."""

    z = 1
'''


def test_what_a_line_of_code_is():
    assert sorted(code_lines(TEXT, ast.parse(TEXT))) == [3, 5, 6, 7, 8, 9, 10, 13, 18]


def test_what_is_too_long_is_seen():
    def found(path, text):
        tree = ast.parse(text)
        return long_ones(path, text, tree, code_lines(text, tree))

    body = "\n".join(f"        x{i} = {i}" for i in range(FUNCTION))
    text = f'class A:\n    def f(self):\n        """A docstring\n\n        is no code."""\n\n        # nor is this\n{body}\n'
    assert found("a.py", text) == {"a.py:A.f": FUNCTION + 1}
    assert found("b.py", "#\n" * FILE) == {}
    assert found("b.py", "#\n" * (FILE + 1)) == {"b.py": FILE + 1}
