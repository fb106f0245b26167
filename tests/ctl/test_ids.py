"""Which job an id means: whole, by how it begins, or `last`."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.id_text import begins, distinct, short_id, short_ids
from sysadmd.ctl.ids import AmbiguousId, NoSuchJob, chosen
from tests.kit import Daemon
from tests.kit.ctl import Ctl, lines

UUID = "5f2c1a9e-0b1d-4c6e-9f00-8a7b6c5d4e3f"
IDS = st.text("ab{}", min_size=1, max_size=6)


def jobs(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "state": "running"} for id in ids]


def test_an_exact_id_wins_over_one_that_begins_so() -> None:
    assert chosen("ab", jobs("abc", "ab")) == "ab"


def test_the_brace_of_an_original_id_may_be_left_out() -> None:
    assert chosen("12", jobs("{12-34}", "x")) == "{12-34}"
    assert chosen("{12", jobs("{12-34}", "x")) == "{12-34}"


def test_an_id_that_was_made_up_is_shown_by_its_first_digits() -> None:
    made_up = (UUID, f"{{{UUID}}}", f"sysadm_pkg_install-{{{UUID}}}")
    for id in made_up:
        assert short_id(id) == "5f2c1a9e"
        # The other commands take them for it.
        assert chosen(short_id(id), jobs(id, "x")) == id
    assert short_id("backup") == "backup"
    assert short_id(f"backup-{UUID}") == f"backup-{UUID}"
    assert short_ids(["backup", *made_up[:2]]) == ["backup", *made_up[:2]]
    assert short_ids(["backup", made_up[2]]) == ["backup", "5f2c1a9e"]


def test_what_fits_several_is_refused_with_their_names_and_states() -> None:
    found = [*jobs("ab1"), {"id": "ab2", "state": "finished", "result": "failed"}]
    with pytest.raises(AmbiguousId, match=r"ab1 \(running\), ab2 \(failed\)"):
        chosen("ab", found)
    with pytest.raises(AmbiguousId, match=r"7 jobs .* and 2 more"):
        chosen("ab", jobs(*(f"ab{n}" for n in range(7))))


@given(st.text("ab{}", max_size=4), st.lists(IDS, max_size=6))
def test_what_is_chosen_is_the_id_or_the_only_one_that_begins_so(
    wanted: str, ids: list[str]
) -> None:
    fitting = {id for id in ids if begins(id, wanted)}
    try:
        id = chosen(wanted, jobs(*ids))
    except AmbiguousId:
        assert len(fitting) > 1
    except NoSuchJob:
        assert not fitting
    else:
        assert id == wanted or fitting == {id}


@given(st.lists(IDS, min_size=1, max_size=8))
def test_ids_cut_to_that_length_are_still_apart(ids: list[str]) -> None:
    length = distinct(ids, 1)
    assert len({id[:length] for id in ids}) == len(set(ids))


def test_commands_take_the_beginning_of_an_id_and_last(daemon: Daemon) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    assert ctl("show", "last").returncode == 1
    for id in ("first job", "{braced}"):
        assert ctl("run", "--id", id, "--", "echo", id).returncode == 0
    assert ctl("log", "fir").stdout == "first job\n"
    assert ctl("log", "br").stdout == "{braced}\n"
    assert lines(ctl("show", "--json", "last"))[0]["id"] == "{braced}"
    assert ctl("run", "--id", "last", "--", "echo", "called so").returncode == 0
    assert ctl("log", "last").stdout == "called so\n"
    gone = ctl("show", "nobody")
    assert gone.returncode == 1
    assert "there is no job 'nobody'; `sysadmctl jobs --all` lists them" in gone.stderr
    assert ctl("show", "").returncode == 1


def test_a_kill_by_a_beginning_means_active_jobs_only(daemon: Daemon) -> None:
    ctl = Ctl(Path("/nonexistent"), "--state-dir", str(daemon.state_dir))
    assert ctl("run", "--id", "long done", "--", "true").returncode == 0
    for id in ("long one", "long two"):
        assert ctl("run", "--no-wait", "--id", id, "--", "sleep", "60").returncode == 0
    several = ctl("kill", "long")
    assert several.returncode == 1
    assert "long one (running), long two (running)" in several.stderr
    assert "long done" not in several.stderr
    killed = ctl("kill", "long o", "long t")
    assert killed.returncode == 0, killed.stderr
    assert "TERM to long one" in killed.stderr
    assert "job long one was killed" in killed.stdout
    assert "job long two was killed" in killed.stdout
    assert {job["result"] for job in lines(ctl("jobs", "--all", "--json"))} == {
        "killed",
        "succeeded",
    }
    over = ctl("kill", "long done")
    assert over.returncode == 1
    assert "the job long done has ended already: succeeded" in over.stderr
