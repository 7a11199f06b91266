"""The plan of the house, as the README draws it: imports only point down, functions and files stay small."""

import ast
import configparser
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for top in ("spectrovae", "tuning", "examples") for path in (ROOT / top).rglob("*.py"))
MAX_FUNCTION_LINES = 60
"""Lines of code; docstrings, comments and blank lines are not counted."""

MAX_FILE_LINES = 500
ALL_FILES = pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))


@pytest.fixture(scope="module")
def floors() -> dict[str, int]:
    """The floor of every place, read off the table in the README: files, and folders that end in a slash."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`([^`]+)`", names)}


def place_of(path: Path) -> str:
    """Return the place in the table that a file belongs to."""
    parts = path.relative_to(ROOT).parts
    if parts[0] != "spectrovae":
        return f"{parts[0]}/"
    return "/".join(parts[:2]) if len(parts) == 2 else f"spectrovae/{parts[1]}/"


def path_of(module: str) -> Path | None:
    """Return the file of a module of ours."""
    top, *rest = module.split(".")
    if top != "spectrovae":
        return None
    folder = ROOT / "tuning" if rest[:1] == ["tuning"] else ROOT.joinpath("spectrovae", *rest[:1])
    base = folder.joinpath(*rest[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.exists()), None)


def imported_files(path: Path, with_types: bool = True) -> set[Path]:
    """Return the files of ours that a file imports, also within functions.

    Without types, what is imported for annotations alone is left out.
    """
    tree, files = ast.parse(path.read_text()), set()
    if not with_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                files.add(path_of(f"{node.module}.{alias.name}") or path_of(node.module))
        elif isinstance(node, ast.Import):
            files |= {path_of(alias.name) for alias in node.names}
    return files - {None, path}


@ALL_FILES
def test_imports_only_point_to_lower_floors(path, floors):
    place = place_of(path)
    assert place in floors, f"{place} is missing from the README's table"
    others = {place_of(file) for file in imported_files(path)} - {place}
    assert others <= floors.keys()
    assert {other for other in others if floors[other] >= floors[place]} == set()


def test_no_circle_within_a_wing():
    below = {
        path: {file for file in imported_files(path, with_types=False) if place_of(file) == place_of(path)}
        for path in FILES
    }
    while free := [path for path, files in below.items() if not files & below.keys()]:
        for path in free:
            del below[path]
    assert not below


def test_every_place_of_the_table_exists(floors):
    assert {place for place in floors if not (ROOT / place).exists()} == set()


def lines_of_code(source: str) -> set[int]:
    """Return the numbers of the lines that hold code, docstrings included."""
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {line for token in tokens if token.type not in layout for line in range(token.start[0], token.end[0] + 1)}


def function_lengths(source: str) -> Iterator[tuple[str, int]]:
    """Yield name and number of code lines of each function."""
    code = lines_of_code(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            lines = code & set(range(node.lineno, node.end_lineno + 1))
            if ast.get_docstring(node) is not None:
                lines -= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
            yield node.name, len(lines)


def test_length_of_a_function_is_that_of_its_code():
    source = (
        'def f(\n    a,\n):\n    """One.\n\n    Two.\n    """\n    # Why.\n\n    return [\n        a,\n    ]  # here\n'
    )
    assert dict(function_lengths(source)) == {"f": 6}


@ALL_FILES
def test_functions_and_files_stay_small(path):
    source = path.read_text()
    assert len(source.splitlines()) <= MAX_FILE_LINES
    assert {name: length for name, length in function_lengths(source) if length > MAX_FUNCTION_LINES} == {}


def test_everything_is_installed():
    """`setup.cfg` lists each package, and each file in a package that is no module."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = set(config["options"]["packages"].split())
    data = {package: set(names.split()) for package, names in config["options.package_data"].items()}
    found, other_files = set(), {}
    for top in ("spectrovae", "tuning"):
        for folder in {path.parent for path in (ROOT / top).rglob("*.py")}:
            parts = folder.relative_to(ROOT).parts
            package = ".".join(parts if top == "spectrovae" else ("spectrovae", *parts))
            found.add(package)
            if others := {
                path.name for path in folder.iterdir() if path.is_file() and path.suffix not in (".py", ".md", ".png")
            }:
                other_files[package] = others
    assert packages == found
    assert data == other_files
