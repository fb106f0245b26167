"""The arrows between the rooms: server -> dispatcher, collectors -> sysadmd, and no other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "sysadmd": {"sysadmd"},
    "collectors": {"collectors", "sysadmd"},
    "dispatcher": {"dispatcher", "sysadmd"},
    "server": {"server", "collectors", "dispatcher", "sysadmd"},
}
# The door alone may look up, inside its functions: every program starts there.
DOOR = ROOT / "sysadmd" / "__main__.py"


def imported_rooms(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names & MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        if file != DOOR:
            rooms = imported_rooms(ast.parse(file.read_text()))
            assert rooms <= MAY_IMPORT[room], f"{file.relative_to(ROOT)} imports {rooms}"


def test_the_door_looks_up_inside_its_functions_only() -> None:
    tree = ast.parse(DOOR.read_text())
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    assert imported_rooms(ast.Module(outside, [])) <= {"sysadmd"}


@pytest.mark.parametrize("room", [*MAY_IMPORT, "tests/kit", "bench"])
def test_every_module_says_first_what_it_is_for(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file


def imported_tests(tree: ast.AST) -> set[str]:
    """What it imports of tests and bench, with full names."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or '.'}.{alias.name}" for alias in node.names}
    return {name for name in names if name.partition(".")[0] in ("tests", "bench", "")}


@pytest.mark.parametrize(("room", "own"), [("tests", "tests.kit."), ("bench", "bench.")])
def test_what_tests_and_benches_share_lies_in_the_kit(room: str, own: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        for name in imported_tests(ast.parse(file.read_text())):
            assert name.startswith((own, "tests.kit.")), f"{file.relative_to(ROOT)}: {name}"
