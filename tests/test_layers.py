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
# What the server's own rooms may import of the server.
_PROTOCOL = "server.wire.protocol"
SERVER_ROOMS = {
    "wire": {"server.wire"},
    "login": {"server.login"},
    "dialects": {"server.dialects", _PROTOCOL, "server.wire.envelope"},
    "delivery": {"server.delivery", "server.dialects", _PROTOCOL},
    "job_classes": {"server.job_classes", "server.dialects.values"},
    "classes": {
        *("server.classes", "server.session", "server.sessions", "server.request_class"),
        "server.delivery",
        *("server.dialects", "server.job_classes", "server.login", _PROTOCOL),
    },
    "bridge": {
        *("server.bridge", "server.service", "server.certificate", "server.loop_clock"),
        *("server.dialects.values", "server.login.challenge", "server.request_reading"),
        "server.wire",
    },
}
# Rooms whose peers come through a socket, and name its types.
HAS_PEERS = {"wire", "bridge"}
# Modules outside of these that open a connection, none of which is a client's.
ASKS_STRANGERS = {"remote_size"}
# The door alone may look up, inside its functions: every program starts there.
DOOR = ROOT / "sysadmd" / "__main__.py"


def imported(tree: ast.AST) -> set[str]:
    """The modules that are imported, and what is imported from each."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def imported_rooms(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imported(tree)} & MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        if file != DOOR:
            rooms = imported_rooms(ast.parse(file.read_text()))
            assert rooms <= MAY_IMPORT[room], f"{file.relative_to(ROOT)} imports {rooms}"


@pytest.mark.parametrize("room", SERVER_ROOMS)
def test_a_room_of_the_server_imports_only_what_it_may(room: str) -> None:
    for file in (ROOT / "server" / room).rglob("*.py"):
        names = imported(ast.parse(file.read_text()))
        for name in names:
            if name.startswith("server."):
                allowed = SERVER_ROOMS[room]
                fits = any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
                assert fits, f"{file.relative_to(ROOT)} imports {name}"
        if room not in HAS_PEERS and file.stem not in ASKS_STRANGERS:
            outside = {name.partition(".")[0] for name in names}
            assert not outside & {"socket", "ssl", "websockets"}, file.relative_to(ROOT)


def test_the_door_looks_up_inside_its_functions_only() -> None:
    tree = ast.parse(DOOR.read_text())
    outside = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    assert imported_rooms(ast.Module(outside, [])) <= {"sysadmd"}


@pytest.mark.parametrize("room", [*MAY_IMPORT, "tests/kit", "bench"])
def test_every_module_says_first_what_it_is_for(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        assert ast.get_docstring(ast.parse(file.read_text())), file


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_the_map_of_the_rooms_names_every_module(room: str) -> None:
    rooms = (ROOT / "docs" / "architecture.md").read_text()
    for file in (ROOT / room).rglob("*.py"):
        if not file.name.startswith("_") and file.parent.name != "ctl":
            assert f"`{file.stem}`" in rooms, file.relative_to(ROOT)


def test_no_two_classes_have_one_name() -> None:
    seen: dict[str, Path] = {}
    for room in MAY_IMPORT:
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.ClassDef):
                    other = seen.setdefault(node.name, file)
                    assert other == file, f"{node.name} is a class of {file} and of {other}"


@pytest.mark.parametrize(("room", "own"), [("tests", "tests.kit."), ("bench", "bench.")])
def test_what_tests_and_benches_share_lies_in_the_kit(room: str, own: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        for name in imported(ast.parse(file.read_text())):
            if name.partition(".")[0] in ("tests", "bench", ""):
                fits = name.startswith((own, "tests.kit."))
                assert fits, f"{file.relative_to(ROOT)} imports {name}"


# Threads of a pool are joined at the end, and may not be had at all.
POOLS = {"to_thread", "run_in_executor", "ThreadPoolExecutor", "ProcessPoolExecutor"}


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_threads_are_begun_where_there_may_be_none_to_be_had(room: str) -> None:
    for file in (ROOT / room).rglob("*.py"):
        tree = ast.parse(file.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        names |= {name.rpartition(".")[2] for name in imported(tree)}
        forbidden = POOLS if file.name == "apart.py" else POOLS | {"Thread"}
        assert not names & forbidden, f"{file.relative_to(ROOT)} uses {names & forbidden}"
