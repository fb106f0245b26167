"""What `sysadmctl top` knows and shows, whatever a server says, on a terminal of any size."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from sysadmd.client import EventFrame
from sysadmd.ctl.top import pressing
from sysadmd.ctl.top.log_lines import LINE_LENGTH, LINES_KEPT, LogLines, beginning
from sysadmd.ctl.top.model import Model, last_line
from sysadmd.ctl.top.pressing import Kill, Look, OpenLog, Quit, Room, Turn, press, split
from sysadmd.ctl.top.screen import Line, clock, log_room, screen

NOW = datetime(2026, 11, 30, 9, 0, 0, tzinfo=UTC)
TIME = "2026-11-30T08:59:00.000Z"
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
# Words that make sense, in places where they do and where they do not.
WORDS = st.sampled_from(
    ["pending", "running", "finished", "a", "b", "failed", TIME, "2026-11-30T08:00:00Z"]
)
KEYS = ["id", "queue", "state", "result", "process_id", "time_started", "time_finished"]
COMMAND = st.fixed_dictionaries(
    {}, optional={"command": WORDS | ODD, "state": WORDS | ODD, "log": st.text() | ODD}
)
COMMANDS = st.lists(COMMAND | ODD, max_size=3) | ODD
PROGRESS = st.fixed_dictionaries({}, optional={"percent": st.integers(0, 100) | ODD})
JOB = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(KEYS, WORDS | ODD),
        **{"commands": COMMANDS, "fields": st.fixed_dictionaries({"progress": PROGRESS})},
    },
)
POOL = st.fixed_dictionaries(
    {},
    optional={
        **{key: st.text(max_size=9) | ODD for key in ("health", "capacity", "alloc", "size")},
        **{"priority": st.sampled_from(["0/Information", "9/Urgent"]) | ODD},
        "data_errors": ODD,
    },
)
STATE = st.fixed_dictionaries(
    {},
    optional={
        **{"hostname": st.text(max_size=30) | ODD, "error": st.text() | ODD},
        "zpools": st.dictionaries(st.text(max_size=30), POOL | ODD, max_size=9) | ODD,
    },
)
ARGS = (
    ODD
    | STATE
    | st.fixed_dictionaries(
        {"state": WORDS, "process_id": WORDS | ODD}, optional={"process_details": JOB | ODD}
    )
    | st.fixed_dictionaries({"jobs": st.lists(JOB, max_size=9), "system_state": STATE | ODD})
)
EVENT = st.builds(
    EventFrame,
    st.sampled_from(["dispatcher", "life_preserver", "system_state", "gap", "snapshot", "new"]),
    ARGS,
    st.just("c"),
    st.just(TIME) | st.text(max_size=20),
)
KEY = st.sampled_from([*"jklxpyqn?gGb ", pressing.UP, pressing.END, pressing.ESCAPE])
SIZE = st.tuples(st.integers(0, 130), st.integers(0, 50))


def event(name: str, args: Any) -> EventFrame:
    return EventFrame(name, args, "c", TIME)


def job_event(id: str, state: str, **more: Any) -> EventFrame:
    details = {"process_id": id, "state": state, **more}
    args = {"process_id": id, "state": state, "process_details": details}
    return event("dispatcher", args)


def text(lines: list[Line]) -> str:
    return "\n".join("".join(piece.text for piece in line) for line in lines)


def shown(model: Model, columns: int = 80, rows: int = 24, look: Look | None = None) -> str:
    return text(screen(model, look or Look(), None, NOW, columns, rows))


@given(st.lists(EVENT, max_size=12), st.lists(KEY, max_size=12), st.text(), SIZE)
def test_whatever_comes_fits_on_any_screen_and_is_harmless(
    events: list[EventFrame], keys: list[str], output: str, size: tuple[int, int]
) -> None:
    model, look, log = Model(), Look(), LogLines()
    log.add(output)
    for number, one in enumerate(events):
        model.tell(one, NOW)
        model.away = "gone" if number % 2 else ""
    for key in keys:
        room = log_room(model, log, *size)
        assert room.first <= room.last
        look, _ = press(look, key, model, room)
        lines = screen(model, look, log, NOW, *size)
        assert len(lines) == (size[1] if size[0] else 0)
        for line in lines:
            assert sum(cell_len(piece.text) for piece in line) <= size[0]
            assert all(piece.text.isprintable() for piece in line)


@given(ODD, ODD, ODD)
def test_replies_that_make_no_sense_change_nothing_that_matters(
    job: Any, queues: Any, past: Any
) -> None:
    model = Model()
    model.tell(job_event("a", "pending"), NOW)
    model.describe_job(job)
    model.learn_queues(queues)
    model.remember(past)
    assert [(one.id, one.state) for one in model.jobs()] == [("a", "pending")]


def pool(health: str, priority: str) -> dict[str, str]:
    return {"health": health, "priority": priority, "capacity": "50%"}


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 12), (30, 10)])
def test_states_are_seen_at_every_size(columns: int, rows: int) -> None:
    model = Model()
    pools = {f"p{n}": pool("ONLINE", "0/Information") for n in range(9)}
    pools["a-pool-with-a-long-name"] = pool("DEGRADED", "9/Urgent")
    jobs = [
        {"id": "x" * 200, "state": "running", "time_started": TIME},
        *({"id": f"j{n}", "state": "pending"} for n in range(30)),
    ]
    state = {"hostname": "h" * 99, "zpools": pools}
    model.tell(event("snapshot", {"jobs": jobs, "system_state": state}), NOW)
    found = shown(model, columns, rows)
    for word in ("connected", "1 running, 30 waiting", "running  ", "pending", "DEGRADED"):
        assert word in found
    model.away = "why"
    assert "connecting again" in shown(model, columns, rows)


def test_a_pool_with_errors_of_a_device_is_not_well_whatever_its_priority() -> None:
    model = Model()
    sick: dict[str, Any] = pool("ONLINE", "0/Information")
    sick["vdevs"] = [
        {"name": "ada1", "state": "ONLINE", "read": "0", "write": "0", "cksum": "574"}
    ]
    pools = {"a": pool("ONLINE", "0/Information"), "tank": sick}
    trouble = "zpool status: " + "word " * 9 + "end"
    state = {"hostname": "vm", "zpools": pools, "error": trouble}
    model.tell(event("system_state", state), NOW)
    found = shown(model)
    assert "pools: 2, 1 not well" in found
    assert "ada1 has 574 checksum errors" in found
    assert found.index("tank") < found.index("  a ")
    # What is wrong with what is watched is whole on a narrow terminal, too.
    assert "end" in shown(model, 40, 24)


def test_a_job_is_shown_from_its_acceptance_to_its_end() -> None:
    model = Model()
    model.tell(job_event("a", "pending"), NOW)
    assert "0 running, 1 waiting" in shown(model)
    model.describe_job({"id": "a", "queue": "pkg_queue", "commands": [{"command": "make"}]})
    model.learn_queues({"pkg_queue": {"paused": True}})
    assert "pkg_queue (paused) make" in shown(model)
    commands = [
        {"command": "make", "state": "running", "log": "one\rtwo\x1b\n\n"},
        {"command": "test", "state": "pending"},
    ]
    model.tell(job_event("a", "running", time_started=TIME, commands=commands), NOW)
    found = shown(model)
    assert "1 running, 0 waiting" in found
    assert "1/2" in found
    assert "1:00" in found
    assert r"two\x1b" in found
    # What only says how far it is is no news.
    told = len(model.news)
    model.tell(job_event("a", "running", time_started=TIME, commands=commands), NOW)
    assert len(model.news) == told
    later = "2026-11-30T08:59:07Z"
    model.tell(job_event("a", "finished", result="failed", time_finished=later), NOW)
    assert model.counts() == (0, 0)
    assert "> failed" in shown(model)
    assert "0:07" in shown(model)


def test_a_job_of_a_class_has_a_bar() -> None:
    model = Model()
    progress = {"percent": 50, "phase": "fetch", "package": "big", "done": 2, "total": 5}
    job = {
        "id": "p",
        "state": "running",
        "time_started": TIME,
        "fields": {"progress": progress},
    }
    model.tell(event("snapshot", {"jobs": [job], "system_state": {}}), NOW)
    assert "[####----]  50%" in shown(model)
    assert "fetch big 2/5" in shown(model)
    assert " 50% " in shown(model, 40, 12)


def test_a_clock_that_is_wrong_makes_no_runtime_wrong() -> None:
    model = Model()
    job = {"id": "a", "state": "running", "time_started": "2026-11-30T08:58:50Z"}
    model.tell(event("snapshot", {"jobs": [job], "system_state": {}}), NOW)
    # TIME was the server's when it was NOW here.
    assert "0:10" in shown(model)
    assert "0:15" in text(screen(model, Look(), None, NOW + timedelta(seconds=5), 80, 24))


def pressed(keys: str, model: Model, look: Look | None = None) -> tuple[Look, Any]:
    look, wish = look or Look(), None
    for key in keys:
        look, wish = press(look, key, model, Room())
    return look, wish


def two_jobs() -> Model:
    model = Model()
    jobs = [
        {"id": "a", "state": "running", "time_started": TIME, "queue": "q"},
        {"id": "b", "state": "pending", "queue": "no_queue"},
    ]
    model.tell(event("snapshot", {"jobs": jobs, "system_state": {}}), NOW)
    return model


def test_nothing_is_killed_or_paused_without_a_yes() -> None:
    model = two_jobs()
    look, wish = pressed("jx", model)
    assert wish is None
    assert "kill the job b" in shown(model, 40, 1, look)
    assert pressed("jxn", model)[1] is None
    assert pressed("jxy", model)[1] == Kill("b", "b")
    assert pressed("py", model)[1] == Turn("q", "pause")
    model.learn_queues({"q": {"paused": True}})
    assert pressed("py", model)[1] == Turn("q", "resume")
    assert pressed("jpy", model)[1] is None
    assert pressed("l", model)[1] == OpenLog("a")
    assert isinstance(pressed("lq", model)[0], Look)
    assert isinstance(pressed("lqq", model)[1], Quit)


def test_a_job_stays_selected_wherever_it_goes() -> None:
    model = two_jobs()
    look, _ = pressed("j", model)
    model.tell(job_event("b", "running", time_started=TIME), NOW)
    model.tell(job_event("c", "pending"), NOW)
    model.tell(job_event("b", "finished", result="killed"), NOW)
    chosen = pressing.selected(look, model)
    assert chosen is not None
    assert chosen.id == "b"
    assert "finished" in pressed("x", model, look)[0].notice


@given(st.binary(max_size=40))
def test_any_bytes_are_keys_or_none_and_all_are_taken_in_the_end(data: bytes) -> None:
    keys, rest = split(data)
    more, nothing = split(rest, last=True)
    assert nothing == b""
    assert all(isinstance(key, str) for key in [*keys, *more])


def test_a_key_may_come_in_parts() -> None:
    assert split(b"j\x1b[A\x1bOBk") == (["j", "up", "down", "k"], b"")
    assert split(b"j\x1b[") == (["j"], b"\x1b[")
    assert split(b"\x1b") == ([], b"\x1b")
    assert split(b"\x1b", last=True) == (["escape"], b"")
    assert split(b"\x1b[1;5Cx") == (["x"], b"")


@given(st.lists(st.text(max_size=500), max_size=20))
def test_the_parts_of_an_output_make_no_difference(parts: list[str]) -> None:
    once, bit_by_bit = LogLines(), LogLines()
    whole = "".join(parts).replace("\r", "")
    once.add(whole)
    for part in parts:
        bit_by_bit.add(part.replace("\r", ""))
    for log in (once, bit_by_bit):
        log.close()
    lines = [[log.line(n) for n in range(log.first, log.end)] for log in (once, bit_by_bit)]
    assert "".join(lines[0]) == "".join(lines[1])
    assert all(len(line) <= LINE_LENGTH and line.isprintable() for line in lines[0])


def test_a_log_is_bounded_and_shows_a_line_as_it_was_left() -> None:
    log = LogLines()
    for number in range(LINES_KEPT + 10):
        log.add(f"{number}\n")
    assert (log.first, log.end) == (10, LINES_KEPT + 10)
    log.add("10 %\r20 %\r")
    assert log.line(log.end - 1) == "20 %"
    log.add("30 %\r\nend")
    assert [log.line(log.end - 2), log.line(log.end - 1)] == ["30 %", "end"]


def test_a_line_that_is_too_long_is_several_rows() -> None:
    log = LogLines()
    log.add("x" * 10_000 + "\n")
    rows = [log.line(n) for n in range(log.first, log.end)]
    assert "".join(rows) == "x" * 10_000
    assert max(map(len, rows)) <= LINE_LENGTH


def test_a_log_is_followed_until_one_looks_back() -> None:
    model, log = two_jobs(), LogLines()
    log.add("".join(f"line {n}\n" for n in range(100)))
    look, _ = pressed("l", model)

    def seen() -> str:
        return text(screen(model, look, log, NOW, 40, 12))

    assert "line 99" in seen()
    look, _ = press(look, pressing.PAGE_UP, model, log_room(model, log, 40, 12))
    before = seen().splitlines()[2:-1]
    log.add("line 100\n")
    assert seen().splitlines()[2:-1] == before
    look, _ = press(look, pressing.HOME, model, log_room(model, log, 40, 12))
    assert "line 0\n" in seen()
    look, _ = press(look, pressing.END, model, log_room(model, log, 40, 12))
    assert look.top is None
    assert "line 100" in seen()


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=9), st.integers(1, 2000), st.data())
def test_the_end_of_all_logs_together_is_fetched(
    sizes: list[int], most: int, data: st.DataObject
) -> None:
    current = data.draw(st.integers(0, len(sizes) - 1))
    number, offset = beginning(sizes, current, most)
    fetched = sum(sizes[number : current + 1]) - offset
    assert fetched == min(most, sum(sizes[: current + 1]))


@pytest.mark.parametrize(
    ("length", "said"),
    [(4.9, "0:04"), (3599, "59:59"), (3723, "1:02:03"), (4 * 86400 + 5 * 3600, "4d 05h")],
)
def test_a_runtime_is_short(length: float, said: str) -> None:
    assert clock(length) == said


def test_the_last_line_is_the_last_with_something_in_it() -> None:
    assert last_line("a\nb\tc\r\n\n") == "b       c"
    assert last_line("") == ""
