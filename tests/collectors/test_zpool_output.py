"""What zpool prints, as values: any text gives a value, and no pool is ever made up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors import pools, zpool_output
from collectors.zpool_output import COLUMNS, parse_list, parse_status
from tests.kit.corpus import ZPOOL, expected_pools, records

NOTHING: frozenset[str] = frozenset()
# Every zpool knows the health.
LACKABLE = sorted(set(COLUMNS) - {"health"})
FULL = ",".join(("name", *COLUMNS))


def row(name: str, health: str = "ONLINE", capacity: str = "0%") -> str:
    return "\t".join((name, "1G", "1M", "1023M", "0%", "-", "1.00x", "-", capacity, health))


@given(st.text(), st.frozensets(st.sampled_from(LACKABLE)))
def test_any_text_is_read_without_an_exception(text: str, lacks: frozenset[str]) -> None:
    answer = parse_list(text, lacks)
    for name, pool in answer.pools.items():
        assert set(pool) == set(COLUMNS)
        assert any(line.startswith(f"{name}\t") for line in text.split("\n"))
    parse_status(text)
    zpool_output.unknown_column(text)


@given(st.lists(st.text(alphabet="-\tONLIE0123456789%.GMx \n/", max_size=60)))
def test_text_that_looks_like_a_list_makes_up_no_pool(lines: list[str]) -> None:
    good = {"tank": row("tank"), "my pool": row("my pool", "FAULTED", "-")}
    text = "\n".join([good["tank"], *lines, good["my pool"], ""])
    found = parse_list(text, NOTHING).pools
    assert set(good) <= set(found)
    for name in set(found) - set(good):
        assert name[:1].isalpha()
        assert found[name]["health"].isalpha()


def test_a_row_of_dashes_is_no_pool_and_is_counted() -> None:
    text = row("tank") + "\n" + "\t".join("-" * 10) + "\n"
    answer = parse_list(text, NOTHING)
    assert set(answer.pools) == {"tank"}
    assert not answer.broken
    assert answer.dashes == 1


def test_a_broken_row_names_its_pool_and_hides_no_other() -> None:
    answer = parse_list(f"{row('a')}\nb\tbroken\n{row('c')}\n", NOTHING)
    assert list(answer.pools) == ["a", "c"]
    assert list(answer.broken) == ["b"]


@pytest.mark.parametrize("name", ["my pool", "a:b-c_d.e", "x" * 255, "Z", "ONLINE"])
def test_odd_names_are_kept_as_they_are(name: str) -> None:
    assert list(parse_list(row(name) + "\n", NOTHING).pools) == [name]


@pytest.mark.parametrize("state", sorted(path.stem for path in ZPOOL.glob("*.jsonl")))
def test_every_recorded_list_gives_the_pools_that_were_there(state: str) -> None:
    for record in records(state):
        argv: list[str] = record.get("argv") or []
        if record["rc"] == 0 and argv[1:] == ["list", "-H", "-o", FULL]:
            wanted = expected_pools(state, record.get("phase", 1))
            answer = parse_list(record["stdout"], NOTHING)
            assert not answer.broken
            assert wanted is not None
            # A live pool changes by a little between two commands.
            assert [name for name in answer.pools if name in wanted] == list(wanted)
            for name, pool in wanted.items():
                got = pools.combine({name: answer.pools[name]}, {}, 90)[name]
                assert str(got["priority"]) == pool["priority"]
                for column in set(COLUMNS) - {"alloc", "free", "frag"}:
                    assert got[column] == pool[column]


def status_records() -> list[Any]:
    return [
        pytest.param(record["stdout"], id=f"{path.stem}-{number}")
        for path in sorted(ZPOOL.glob("*.jsonl"))
        for number, record in enumerate(records(path.stem))
        if record.get("argv") and record["argv"][1:] == ["status"] and record["rc"] == 0
    ]


@pytest.mark.parametrize("text", status_records())
def test_every_recorded_status_is_read_pool_by_pool(text: str) -> None:
    found = parse_status(text)
    names = [line[8:] for line in text.split("\n") if line.startswith("  pool: ")]
    assert list(found) == names
    for name, detail in found.items():
        for vdev in detail.vdevs:
            assert vdev["name"] in text
            assert vdev["state"] in zpool_output.STATES
        assert not detail.unread
        if "scan:" in text.split(f"  pool: {name}\n")[1].split("config:")[0]:
            assert detail.scan is not None


def test_devices_that_are_not_well_are_named_with_their_errors() -> None:
    text = (
        "  pool: tank\n state: DEGRADED\nconfig:\n\n"
        "\tNAME             STATE     READ WRITE CKSUM\n"
        "\ttank             DEGRADED     0     0     0\n"
        "\t  mirror-0       DEGRADED     0     0     0\n"
        "\t    my disk 1    FAULTED      3  1.2K     0  too many errors\n"
        "\t    ONLINE disk  ONLINE       0     0    62\n"
        "\t    fine         ONLINE       0     0     0  12K resilvered\n"
        "\tspares\n\t  /dev/sp0       AVAIL   \n\nerrors: No known data errors\n"
    )
    vdevs = {vdev["name"]: vdev for vdev in parse_status(text)["tank"].vdevs}
    assert set(vdevs) == {"mirror-0", "my disk 1", "ONLINE disk"}
    assert vdevs["my disk 1"]["write"] == "1.2K"
    assert vdevs["ONLINE disk"]["cksum"] == "62"


def test_a_scrub_that_found_errors_says_how_many_and_when() -> None:
    text = (
        "  pool: tank\n state: ONLINE\n"
        "  scan: scrub repaired 4K in 00:00:00 with 27 errors on Tue Nov 24 19:13:09 2026\n"
        "config:\n\n\tNAME STATE READ WRITE CKSUM\n\ttank ONLINE 0 0 0\n"
    )
    assert parse_status(text)["tank"].scan == {
        "function": "scrub",
        "state": "finished",
        "ended": "Tue Nov 24 19:13:09 2026",
        "errors": 27,
    }


CONFIG = """config:

\tNAME                     STATE     READ WRITE CKSUM
\ttank                     DEGRADED     0     0     0
\t  mirror-0               DEGRADED     0     0     0
\t    replacing-0          DEGRADED     0     0     3
\t      8371824839/old     UNAVAIL      0     0     0  was /dev/sdb1
\t      sdc                ONLINE       0     0     0  (resilvering)
\t    spare-1              ONLINE       0     0     0
\t      sdd                ONLINE       0     0     0  repaired
\t  a device by a path so long that it leaves its column  FAULTED      1    2K     3  gone
\t  sdx                    SPLINTERED   0     0     0
\tspecial\t
\t  mirror-1               ONLINE       0     0     0
\tdedup
\t  sdz                    ONLINE       0     0     1
\tlogs
\t  sdl                    ONLINE       0     0     0
\tcache
\t  sdg                    UNAVAIL      0     0     0  cannot open
\tspares
\t  sde                    INUSE     currently in use
\t  sdh                    UNAVAIL   cannot open

errors: List of errors unavailable: permission denied
"""


def test_devices_of_every_kind_are_told_when_they_are_not_well() -> None:
    vdevs = parse_status(f"  pool: tank\n state: DEGRADED\n{CONFIG}")["tank"].vdevs
    assert [(vdev["name"], vdev["state"]) for vdev in vdevs] == [
        ("mirror-0", "DEGRADED"),
        ("replacing-0", "DEGRADED"),
        ("8371824839/old", "UNAVAIL"),
        ("a device by a path so long that it leaves its column", "FAULTED"),
        ("sdx", "SPLINTERED"),
        ("sdz", "ONLINE"),
        ("sdg", "UNAVAIL"),
        ("sdh", "UNAVAIL"),
    ]
    assert vdevs[3]["write"] == "2K"
    assert vdevs[2]["note"] == "was /dev/sdb1"


IN_PROGRESS = "in progress since Thu Nov 26 12:00:00 2026"
ENDED = "on Thu Nov 26 10:00:00 2026"


# Source: zpool_main.c of illumos, ZoL 0.8, OpenZFS 2.0 and 2.2; zfs-fuse.
@pytest.mark.parametrize(
    ("scan", "wanted"),
    [
        (
            f"scan: resilver {IN_PROGRESS}\n\t1.50T / 5.00T scanned at 1.2G/s,"
            " 300G / 5.00T issued at 250M/s\n\t60.0G resilvered, 5.86% done, 05:30:12 to go",
            ("resilver", "running", 5.86),
        ),
        (
            f"scan: resilver {IN_PROGRESS}\n    1.50T scanned out of 5.00T at"
            " 1.2G/s, 0h12m to go\n        60G resilvered, 5.86% done",
            ("resilver", "running", 5.86),
        ),
        (
            "scrub: resilver in progress for 0h0m, 12.3% done, 0h1m to go",
            ("resilver", "running", 12.3),
        ),
        (
            "scan: scrub paused since Thu Nov 26 12:00:00 2026\n\tscrub started on Thu Nov 26"
            " 11:00:00 2026\n\t1.50T scanned, 300G issued, 5.00T total\n"
            "\t0B repaired, 6.00% done",
            ("scrub", "paused", 6.0),
        ),
        (
            f"scan: scrub repaired 0B in 00:00:01 with 0 errors {ENDED}\n"
            f"  scan: resilver (mirror-0) {IN_PROGRESS}\n\t60G resilvered, 5.86% done",
            ("resilver", "running", 5.86),
        ),
        (
            f"scan: resilver (mirror-0) {IN_PROGRESS}\n\t60G resilvered, 5.86% done\n"
            f"  scan: scrub repaired 0B in 00:00:01 with 0 errors {ENDED}",
            ("resilver", "running", 5.86),
        ),
        (
            f"scan: scrub {IN_PROGRESS}\n\t1T scanned\nremove: Evacuation of sda in progress\n"
            "\t10G copied out of 20G at 1G/s, 50.00% done, 0h1m to go",
            ("scrub", "running", None),
        ),
        (f"scan: scrub canceled {ENDED}", ("scrub", "canceled", None)),
        (
            f"scrub: scrub stopped after 0h1m with 0 errors {ENDED}",
            ("scrub", "canceled", None),
        ),
    ],
)
def test_a_scan_is_read_whatever_zpool_tells_it(
    scan: str, wanted: tuple[str, str, float | None]
) -> None:
    found = parse_status(f"  pool: tank\n state: ONLINE\n  {scan}\n{CONFIG}")["tank"].scan
    assert found is not None
    assert (found["function"], found["state"], found.get("percent")) == wanted


def test_names_are_padded_by_bytes() -> None:
    names = ("tank", "  gpt/データ", "  disk/by-path/a-long-one")
    rows = zip(names, ("DEGRADED", "FAULTED", "ONLINE"), "030", strict=True)
    width = max(len(name.encode()) for name in names)
    lines = [f"\tNAME{' ' * (width - 4)}  STATE     READ WRITE CKSUM"]
    for name, state, count in rows:
        pad = " " * (width - len(name.encode()))
        lines.append(f"\t{name}{pad}  {state:8}  {count:>4} {count:>5} {count:>5}")
    text = "\n".join(["  pool: tank", "config:", "", *lines])
    (vdev,) = parse_status(text)["tank"].vdevs
    assert (vdev["name"], vdev["state"], vdev["read"]) == ("gpt/データ", "FAULTED", "3")


ROWS = (
    "\ttank             DEGRADED     0     0     0{x}\n"
    "\t  mirror-0       DEGRADED     0     0     0{x}\n"
    "\t    sda          FAULTED      7     2     0{x}  too many errors\n"
    "\t    sdb          ONLINE       0     0     0{x}\n"
    "\tspares\n"
    "\t  sdc            UNAVAIL   cannot open\n"
)
TOP = "  pool: tank\n state: DEGRADED\nconfig:\n\n"
END = "\nerrors: No known data errors\n"


@pytest.mark.parametrize(
    ("head", "more"),
    [
        ("READ WRITE CKSUM", ""),
        ("READ WRITE CKSUM DELAY", "     -"),
        ("READ WRITE CKSUM  SLOW  POWER", "     3    on"),
        # A row may have nothing in them.
        ("READ WRITE CKSUM   DIO", ""),
    ],
)
def test_more_columns_take_nothing_away(head: str, more: str) -> None:
    text = f"{TOP}\tNAME             STATE     {head}\n{ROWS.format(x=more)}{END}"
    detail = parse_status(text)["tank"]
    assert not detail.unread
    found = {vdev["name"]: vdev for vdev in detail.vdevs}
    assert list(found) == ["mirror-0", "sda", "sdc"]
    assert [found["sda"][key] for key in ("read", "write", "cksum")] == ["7", "2", "0"]
    assert found["sda"].get("note", "").endswith("errors")
    assert detail.well == {"tank", "sdb"}


def test_a_column_between_the_others_takes_nothing_away() -> None:
    head = "\tNAME             STATE     READ TRIM WRITE CKSUM\n"
    row = "\t  sda            ONLINE       0    9     0     5\n"
    (vdev,) = parse_status(TOP + head + row)["tank"].vdevs
    assert (vdev["read"], vdev["write"], vdev["cksum"]) == ("0", "0", "5")


HEAD = "\tNAME             STATE     READ WRITE CKSUM\n"


@pytest.mark.parametrize(
    "table",
    [
        "",
        "config: The configuration cannot be determined.\n",
        HEAD.replace("CKSUM", "SUMS") + ROWS.format(x=""),
        HEAD.replace("STATE", "HEALTH") + ROWS.format(x=""),
        (HEAD + ROWS.format(x="")).replace("\t", "        "),
        HEAD + "\t  sda            ONLINE    1;2K     0     0\n",
        HEAD + "\t  sda            ONLINE       -     -     -\n",
        HEAD + "\t  sda            ONLINE\n",
        HEAD + "\t  sda\n",
        HEAD + "\ttank\n",
        HEAD + "\t  sda            fine         0     0     0\n",
        HEAD + "\t  sda            ONLINE       many errors\n",
    ],
)
def test_devices_that_cannot_be_read_are_not_taken_for_well(table: str) -> None:
    detail = parse_status(TOP + table + "\nerrors: No known data errors\n")["tank"]
    assert detail.unread
    assert "sda" not in detail.well


@pytest.mark.parametrize(
    "end",
    [
        # Cut behind a row, within one, or before the line of errors.
        "",
        "\t  sda            FAUL",
        "\t  sda            FAULTED      7     0     0\n",
        # Without its end the last line may have lost more.
        "\nerrors: 12",
    ],
)
def test_a_status_without_its_end_is_not_taken_for_all(end: str) -> None:
    text = TOP + HEAD + "\ttank           DEGRADED     0     0     0\n" + end
    detail = parse_status(text)["tank"]
    assert detail.unread
    assert detail.cut


def test_a_pool_that_can_not_be_opened_has_no_line_of_errors() -> None:
    rows = "\ttank           UNAVAIL      0     0     0  insufficient replicas\n"
    detail = parse_status(TOP.replace("DEGRADED", "UNAVAIL") + HEAD + rows)["tank"]
    assert (detail.unread, detail.cut, detail.state) == (False, False, "UNAVAIL")


@pytest.mark.parametrize("line", ["libzfs: warning: slow", "cannot look up a name", "\0 sdc 1"])
def test_what_complains_amid_the_table_hides_no_device(line: str) -> None:
    sick = "\t  sda            FAULTED      7     0     0\n"
    detail = parse_status(f"{TOP}{HEAD}{line}\n{sick}{END}")["tank"]
    assert detail.unread
    assert [vdev["name"] for vdev in detail.vdevs] == ["sda"]


@pytest.mark.parametrize(("mark", "end"), [("", "\r\n"), ("\ufeff", "\n")])
def test_what_a_wrapper_makes_of_the_text_changes_nothing(mark: str, end: str) -> None:
    text = f"{TOP}{HEAD}{ROWS.format(x='')}{END}"
    assert parse_status(mark + text.replace("\n", end)) == parse_status(text)
    table = row("tank") + "\n" + row("other") + "\n"
    assert parse_list(mark + table.replace("\n", end), NOTHING) == parse_list(table, NOTHING)


def test_an_empty_cell_shifts_no_counts() -> None:
    head = "\tNAME             STATE     DELAY  READ WRITE CKSUM  SLOW\n"
    sda = "\t  sda            ONLINE                0     9     0     4\n"
    assert parse_status(TOP + head + sda + END)["tank"].unread


def test_an_odd_cell_hides_no_health() -> None:
    text = row("tank", "FAULTED").replace("1.00x", "one") + "\n" + row("b", "FAULTY?") + "\n"
    answer = parse_list(text, NOTHING)
    assert (answer.pools["tank"]["health"], answer.pools["tank"]["dedup"]) == ("FAULTED", "-")
    assert list(answer.broken) == ["tank", "b"]
    assert "b" not in answer.pools
    # Of another locale.
    answer = parse_list(row("tank").replace("1.00x", "1,00x") + "\n", NOTHING)
    assert not answer.broken


def test_a_list_without_its_end_may_lack_more() -> None:
    answer = parse_list(row("a") + "\n" + row("b", "ONLI"), NOTHING)
    assert (list(answer.pools), list(answer.broken)) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("said", "errors"),
    [("with 12,345 errors", 12345), ("with 5\n\terrors", 5), ("\n\twith 5 errors", 5)],
)
def test_the_errors_of_a_scrub_are_read_however_they_are_written(
    said: str, errors: int
) -> None:
    text = f"scrub repaired 0B in 0 days {said} on Sun Nov 29 10:00:00 2026"
    scan = parse_status(f"  pool: tank\n  scan: {text}\n{CONFIG}")["tank"].scan
    assert scan is not None
    assert scan.get("errors") == errors


def test_a_device_without_counts_is_told_by_its_state() -> None:
    detail = parse_status(f"{TOP}{HEAD}\t  sda            FAULTED   no counts\n")["tank"]
    assert detail.unread
    assert [(vdev["name"], vdev["state"]) for vdev in detail.vdevs] == [("sda", "FAULTED")]


@given(st.lists(st.text(alphabet="\tNAMESTWRICKU 0123456789.-kx\n", max_size=60), max_size=8))
def test_a_table_is_read_or_said_to_be_unreadable(lines: list[str]) -> None:
    sick = "\t  sick           FAULTED      1     0     0\n"
    text = f"{TOP}{HEAD}{sick}" + "".join(f"\t{line}\n" for line in lines)
    detail = parse_status(text)["tank"]
    assert any(vdev["name"] == "sick" for vdev in detail.vdevs)
    # Whatever else stands there, its name is that of nobody who is well.
    well = parse_status(f"{TOP}{HEAD}" + "".join(f"\t{x}\n" for x in lines))["tank"].well
    assert all(any(name in line for line in lines) for name in well)


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["No known data errors"], None),
        (["2 data errors, use '-v' for a list"], 2),
        (["1 data errors, use '-v' for a list"], 1),
        (["0 data errors, use '-v' for a list"], None),
        (
            ["Permanent errors have been detected in the following files:"],
            "Permanent errors have been detected in the following files:",
        ),
        (
            ["List of errors unavailable (insufficient privileges)"],
            "List of errors unavailable (insufficient privileges)",
        ),
        # Both, on one stream.
        (["List of errors unavailable: permission denied", "84 data errors, use '-v'"], 84),
        (["Something new\x1b"], "Something new\\x1b"),
        ([], None),
    ],
)
def test_data_errors_are_a_number_or_what_is_said_instead(
    lines: list[str], wanted: int | str | None
) -> None:
    text = f"{TOP}{HEAD}{ROWS.format(x='')}" + "".join(f"errors: {line}\n" for line in lines)
    assert parse_status(text)["tank"].data_errors == wanted


@pytest.mark.parametrize(
    ("said", "percent"),
    [
        *[("100.00%", 100.0), ("0.00%", 0.0), ("5,86%", 5.86), ("5,86 %", 5.86)],
        *[("118068.85%", None), ("118068 %", None), ("100,09%", None), ("100.01%", None)],
        *[("1e5%", None), ("\u0661\u0662%", None)],
        *[("-5.00%", None), ("1.118.068,85%", None), ("101%", None), ("nan%", None)],
    ],
)
def test_a_percentage_is_one_from_0_to_100(said: str, percent: float | None) -> None:
    text = f"  pool: tank\n  scan: scrub {IN_PROGRESS}\n\t0B repaired, {said} done\n{CONFIG}"
    scan = parse_status(text)["tank"].scan
    assert scan is not None
    assert scan.get("percent") == percent


@pytest.mark.parametrize("said", ["101%", "118068%", f"{2**64 - 1}%"])
def test_a_share_above_the_whole_is_not_told_and_its_row_is_not_whole(said: str) -> None:
    answer = parse_list(row("tank", "DEGRADED", said) + "\n", NOTHING)
    assert answer.pools["tank"]["capacity"] == "-"
    assert answer.pools["tank"]["health"] == "DEGRADED"
    assert list(answer.broken) == ["tank"]


@pytest.mark.parametrize("said", ["0%", "00%", "100%", "-"])
def test_any_other_share_is_told_as_it_is(said: str) -> None:
    answer = parse_list(row("tank", "ONLINE", said) + "\n", NOTHING)
    assert answer.pools["tank"]["capacity"] == said
    assert not answer.broken


@pytest.mark.parametrize(
    ("text", "none"),
    [("", True), ("no pools available\n", True), ("Aucun pool\n", False), ("{}", False)],
)
def test_that_there_are_no_pools_is_known_by_its_words(text: str, none: bool) -> None:
    assert zpool_output.tells_of_none(text) is none
