"""Lines of Life Preserver's log and of zfs send: any text, and every wording on record."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.lp_lines import RULES, classify
from collectors.lp_progress import Progress

DATE = "Tue Nov 24 18:00:02 UTC 2026: "


@given(st.text())
def test_any_line_gives_a_message_or_nothing(line: str) -> None:
    message = classify(line)
    if message is not None:
        assert message.text in line
        assert 1 <= message.priority <= 7


@given(st.text(), st.sampled_from([beginning for beginning, _, _ in RULES]))
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
    classify(text)
    classify("ERROR: " + text)
    assert time.thread_time() - begun < 0.05


def test_progress_reads_as_documented() -> None:
    progress = Progress().read("total estimated size is 3G")
    progress = progress.read("18:00:03   1.2G   tank/data@auto-2026")
    assert progress.message("tank/data") == "Replicating tank: 1.2G/3G (40%)"
