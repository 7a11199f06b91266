"""The plan of the house, as the README draws it: imports only point to lower floors, and files stay small."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for room in ("spectrovae", "tuning", "examples") for path in (ROOT / room).glob("*.py"))


@pytest.fixture(scope="module")
def floors() -> dict[str, int]:
    """The floor of every module, read off the table in the README."""
    rows = re.findall(r"^\| (\d+) \| (.+?) \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`([^`]+)`", names)}


def room_of(path: Path) -> str:
    return f"{path.parent.name}/" if path.parent.name != "spectrovae" else f"spectrovae/{path.name}"


def imported_rooms(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "spectrovae":
            modules |= {f"spectrovae.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    rooms = set()
    for module in modules:
        package, _, rest = module.partition(".")
        if package == "spectrovae":
            name = rest.split(".")[0]
            is_module = (ROOT / "spectrovae" / f"{name}.py").exists()
            rooms.add("tuning/" if name == "tuning" else f"spectrovae/{name if is_module else '__init__'}.py")
    return rooms


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_only_point_to_lower_floors(path, floors):
    room = room_of(path)
    assert room in floors, f"{room} is missing from the README's table"
    above = {other for other in imported_rooms(path) - {room} if floors[other] >= floors[room]}
    assert not above


def test_table_has_no_rooms_that_do_not_exist(floors):
    assert {room for room in floors if not (ROOT / room).exists()} == set()


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_files_stay_small(path):
    assert len(path.read_text().splitlines()) <= 250
