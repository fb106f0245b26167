"""Lines of Life Preserver's log and of zfs send: any text, and every wording on record."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.lp_lines import CUT_MARK, MISSING, RULES, Message, messages
from collectors.lp_progress import Progress

DATE = "Tue Nov 24 18:00:02 UTC 2026: "
NEXT = "Tue Nov 24 18:00:09 UTC 2026: ERROR: Failed creating snapshot on tank/next"
# What is never in a name of ZFS: it is taken for damage. A line ends with CR where it was so.
INTACT = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff\r\n"))


def classify(line: str) -> Message | None:
    """The only message of a line."""
    found = messages(line.encode())
    assert len(found) < 2
    return found[0] if found else None


def texts(line: bytes) -> list[str]:
    return [message.text for message in messages(line)]


@given(st.binary() | st.text().map(str.encode))
def test_any_line_gives_messages_or_nothing(line: bytes) -> None:
    for message in messages(line):
        assert 1 <= message.priority <= 7


@given(INTACT, st.sampled_from([beginning for beginning, _, _ in RULES]))
def test_what_follows_the_wording_is_kept_as_it_is(rest: str, beginning: str) -> None:
    message = classify(DATE + beginning + rest)
    assert message is not None
    assert message.text == beginning + rest


@pytest.mark.parametrize("word", ["ERROR", "FAILED", "Failed", "Cannot"])
@pytest.mark.parametrize("date", [DATE, ""])
def test_no_failure_is_silent_whatever_its_wording(word: str, date: str) -> None:
    message = classify(f"{date}{word} something that nobody has foreseen: a: b")
    assert message is not None
    assert message.priority == 7


@given(st.text(alphabet="0123456789:. abTOKMGC", max_size=40))
def test_a_date_of_any_locale_is_not_part_of_the_message(date: str) -> None:
    # Where a date itself has what ends one, nobody can tell.
    if ": " in f"{date} " or re.search(r"\d{1,2}[:.]\d\d[:.]\d\d", date):
        return
    message = classify(f"{date} 18:00:02 {date}: Creating snapshot on tank/A B")
    assert message is not None
    assert message.text == "Creating snapshot on tank/A B"


@pytest.mark.parametrize(
    "date",
    [
        "2026年11月26日 木曜日 18時00分02秒 JST",
        "2026년 11월 26일 목요일 18시 00분 02초 KST",
        "jeu 26 nov 2026 18 h 00 min 02 s CET",
        "to 26. marraskuuta 2026 18.00.02 EET",
        "чт, 26-ное-2026 18,00,02 EET",
        "الخميس ۲۶ نوفمبر ۱۸:۰۰:۰۲ UTC",  # noqa: RUF001
        "Thu Nov 26 06:00:02 PM CET 2026",
        "2026-11-26T18:00:02+01:00",
    ],
)
def test_the_dates_of_the_world_are_known(date: str) -> None:
    message = classify(f"{date}: Creating snapshot on tank/A: b")
    assert message is not None
    assert message.text == "Creating snapshot on tank/A: b"


def test_a_replication_names_its_send_log_and_dataset() -> None:
    text = "Starting replication SCHEDULED task on tank/My Data: /var/log/x y"
    message = classify(DATE + text)
    assert message is not None
    assert (message.follow, message.dataset) == ("/var/log/x y", "tank/My Data")


@given(st.lists(st.text()))
def test_any_send_log_gives_progress_or_nothing(lines: list[str]) -> None:
    progress = Progress()
    for line in lines:
        progress = progress.read(line)
        progress.message("tank")


@given(st.lists(st.text(alphabet="0123456789:.BKMGTPE totalesimdzs")))
def test_odd_numbers_in_a_send_log_are_no_exception(lines: list[str]) -> None:
    progress = Progress().read("total estimated size is 3G")
    for line in lines:
        progress = progress.read(line).read(f"10:00:00 {line} tank@x")
        progress = progress.read(f"total estimated size is {line}")
        progress.message("tank")


@pytest.mark.parametrize("size", ["9" * 400, "9" * 400 + "E", "1." + "9" * 400, "1.2.3", "0"])
def test_a_size_beyond_all_numbers_is_no_exception(size: str) -> None:
    progress = Progress().read("total estimated size is 3G").read(f"10:00:00 {size} tank@x")
    assert progress.message("tank") in (None, f"Replicating tank: {size}/3G (0%)")
    progress = Progress().read(f"total estimated size is {size}").read("10:00:00 3G tank@x")
    progress.message("tank")


@pytest.mark.parametrize("text", ["00:00:00" * 8000, "x" * 65536, "0:" * 32000, ": " * 32000])
def test_a_long_line_costs_little(text: str) -> None:
    begun = time.thread_time()
    messages(text.encode())
    messages(f"ERROR: {text}".encode())
    messages(f"{DATE}Creating {text}".encode())
    assert time.thread_time() - begun < 0.05


@pytest.mark.parametrize(
    "part",
    [": ERROR", "18:00:02 2026: ERROR", "\0", "\0ERROR", "x\0", ": Failed\0", "\ufeff", "\r"],
)
def test_a_long_damaged_line_costs_little(part: str) -> None:
    line = (DATE + part * (65536 // len(part))).encode()
    begun = time.thread_time()
    messages(line)
    assert time.thread_time() - begun < 0.5


@pytest.mark.parametrize("beginning", [beginning for beginning, _, _ in RULES])
@pytest.mark.parametrize("end", range(len(DATE) + len("Creating snapshot on tank/a") + 1))
def test_a_torn_line_does_not_cost_the_one_that_is_glued_to_it(
    beginning: str, end: int
) -> None:
    torn = f"{DATE}Creating snapshot on tank/a"[:end]
    whole = f"{beginning}what follows"
    found = texts(f"{torn}Tue Nov 24 18:00:09 UTC 2026: {whole}".encode())
    assert found[-1] == whole
    # Of the torn one what is there; no more than that, and nothing of the next one's date.
    assert found[:-1] in ([], [torn.removeprefix(DATE)])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Tue Nov 24 18:00:02 UTC 2026", "Mi 25. Nov 09:00:02 CET 2026"),
        ("Sat Oct 24 23:59:59 CEST 2026", "Sun Oct 25 02:00:01 CET 2026"),
        ("Di 24. Nov 18:00:02 CET 2026", "Fr 4. Dez 18:00:02 CET 2026"),
        ("2026年11月26日 木曜日 18時00分02秒 JST", "2026年11月27日 金曜日 18時00分02秒 JST"),
        ("2026-11-26T18:00:02+01:00", "2026-11-27T18:00:02+01:00"),
    ],
)
def test_a_glued_line_is_known_by_a_date_of_any_locale(first: str, second: str) -> None:
    glued = f"{first}: ERROR: Failed on tank/a {second}: ERROR: Failed on tank/b"
    (one, two) = texts(glued.encode())
    assert one.startswith("ERROR: Failed on tank/a ")
    assert two == "ERROR: Failed on tank/b"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        # Torn, and an undated failure behind it.
        (f"{DATE}Creating snapsERROR: Failed creating x", ["ERROR: Failed creating x"]),
        (f"{DATE}Creating snapsFAILED replication y", ["FAILED replication y"]),
        # The next line's date is like its own, of a year of two digits.
        (
            "26-11-24 18:52:01 CET: Creating snaps26-11-24 18:52:01 CET: ERROR: x",
            ["ERROR: x"],
        ),
        (
            "26-11-24 18:52:01 CET: Creating snapshot on a26-11-24 18:52:01 CET: ERROR: x",
            ["Creating snapshot on a", "ERROR: x"],
        ),
        # Dates without a time of day.
        ("24 Noyabr, 2026 yil, Seshanba: ERROR: x", ["ERROR: x"]),
        ("S\u00ea\u015fem 24 mijdar 2026: Creating snapshot on x", ["Creating snapshot on x"]),
        # Days of one digit and of two; a failure without a date before one that has one.
        (
            "Mon Nov 30 18:52:01 UTC 2026: Creating snapshot on tank/d00001"
            "Tue Dec  1 18:52:01 UTC 2026: ERROR: x",
            ["Creating snapshot on tank/d00001", "ERROR: x"],
        ),
        (
            "ERROR: Failed on tank/d00002Mon Nov 24 18:52:01 UTC 2026: ERROR: x",
            ["ERROR: Failed on tank/d00002", "ERROR: x"],
        ),
        (" ERROR: x", ["ERROR: x"]),
        # What tells of no failure is no news.
        (f"{DATE}Sending to backup: no ERRORs", []),
        (f"{DATE}Limiting to 5 FAILEDs", []),
    ],
)
def test_no_line_is_lost_by_an_odd_date_or_a_torn_one(line: str, wanted: list[str]) -> None:
    assert texts(line.encode()) == wanted


def test_three_lines_without_their_ends_are_three_messages() -> None:
    line = "".join(f"{DATE}Creating snapshot on tank/{name}" for name in "abc")
    assert texts(line.encode()) == [f"Creating snapshot on tank/{name}" for name in "abc"]


def test_each_message_has_the_date_of_its_own_line() -> None:
    dates = ("Sun Nov  1 18:00:02 UTC 2026", "Mon Nov 2 18:00:02 CET 2026")
    for line, wanted in (
        (f"{dates[0]}: Creating snapshot on a\r", [dates[0]]),
        (f"{dates[0]}: ERROR: a{dates[1]}: ERROR: b", list(dates)),
        (f"{dates[0]}: ERROR: a\0\0{dates[1]}: ERROR: b", list(dates)),
        (f"{dates[0]}: ERROR: a\0\0b: c", [dates[0]]),
        (f"{dates[0]}: Starting replication SYNC task on a: /log", [dates[0]]),
        ("24. Nov 18:00:02 2026: FAILED replication", ["24. Nov 18:00:02 2026"]),
        ("ERROR: a at 18:00:02: b", [""]),
        ("Nov 24: ERROR: a", [""]),
    ):
        assert [message.date for message in messages(line.encode())] == wanted, line


@given(INTACT.filter(lambda text: not re.search(r"\d", text)), st.binary(max_size=100))
def test_rubbish_before_a_line_does_not_cost_it(rest: str, rubbish: bytes) -> None:
    line = rubbish.replace(b"\n", b"") + DATE.encode() + f"ERROR: {rest}".encode()
    assert any(text.endswith(f"ERROR: {rest}") for text in texts(line))


@pytest.mark.parametrize("size", [1, 500, 30000])
@pytest.mark.parametrize("undated", [False, True])
def test_a_hole_in_a_line_does_not_cost_what_is_behind_it(size: int, undated: bool) -> None:
    text = "ERROR: Failed creating snapshot on tank/next"
    behind = text if undated else NEXT
    hole = b"\0" * size
    for before in ("", "Tue Nov 24 18:0", DATE, f"{DATE}Creating snaps"):
        assert texts(before.encode() + hole + behind.encode()) == [text]
    whole = f"{DATE}Creating snapshot on tank/a"
    assert texts(whole.encode() + hole + behind.encode()) == [whole[len(DATE) :], text]


@pytest.mark.parametrize("at", range(1, len(NEXT)))
def test_a_failure_with_a_hole_in_it_is_told(at: int) -> None:
    known = NEXT.index("Failed")
    if NEXT.index("ERROR") < at < known - len("R: "):
        # Not even its first word is whole.
        return
    found = texts(f"{NEXT[:at]}\0\0\0{NEXT[at:]}".encode())
    # Where its first word alone is before the hole, nobody can tell whether it is one failure.
    assert len(found) == 1 or found[0] in ("ERROR", "ERROR: ")
    told = found[-1].replace(MISSING, "")
    assert told in NEXT
    assert told.endswith("Failed creating snapshot on tank/next")


def test_a_date_that_is_not_utf8_any_more_does_not_cost_the_line() -> None:
    line = b"Tue Nov 24 1\xff:0\xfe:09 UTC 2026: ERROR: Failed creating snapshot on tank/a"
    assert texts(line) == ["ERROR: Failed creating snapshot on tank/a"]


@pytest.mark.parametrize("line", [NEXT, NEXT.partition(": ")[2]])
@pytest.mark.parametrize("before", ["", "\0\0", "\ufeff", f"{DATE}Creating snaps"])
def test_a_byte_order_mark_is_no_part_of_a_line(line: str, before: str) -> None:
    assert texts(f"{before}\ufeff{line}\r".encode()) == [NEXT.partition(": ")[2]]


def test_a_failure_without_a_date_is_told_though_it_names_a_time() -> None:
    text = "ERROR: Failed at 18:00:02 on tank/a: no space"
    assert texts(text.encode()) == [text]


def test_a_line_that_is_cut_says_so() -> None:
    (message,) = messages(f"{DATE}ERROR: long".encode(), cut=True)
    assert message.text == f"ERROR: long{CUT_MARK}"


def test_progress_reads_as_documented() -> None:
    progress = Progress().read("total estimated size is 3G")
    progress = progress.read("18:00:03   1.2G   tank/data@auto-2026")
    assert progress.message("tank/data") == "Replicating tank: 1.2G/3G (40%)"
