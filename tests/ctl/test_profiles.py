"""Several servers that were logged in to: named, chosen, listed, forgotten, never mixed up."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysadmd.ctl.profiles import (
    DAMAGED,
    LOCAL,
    Profile,
    Profiles,
    as_text,
    is_name,
    read_old_text,
    read_text,
)
from tests.kit import QUIET, Daemon
from tests.kit.bridged import Bridged
from tests.kit.ctl import Ctl, lines
from tests.kit.profiles import change_default, default_profile, profiles_file, read_profiles

NAMES = st.text().filter(is_name)
PROFILES = st.builds(
    Profile,
    url=st.sampled_from(["wss://a.x:12150", "wss://a.y:12150", "wss://a.x:1", "wss://[::1]:2"]),
    token=st.text(),
    pin=st.text(),
    name=st.text(),
    key=st.none() | st.text(),
    bridge=st.booleans(),
)


@given(st.dictionaries(NAMES, PROFILES))
def test_what_is_kept_comes_back(kept: dict[str, Profile]) -> None:
    for default in (None, LOCAL, *kept):
        profiles = Profiles(default, kept)
        assert read_text(as_text(profiles)) == profiles


@given(st.text() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_any_other_text_is_damaged(text: str) -> None:
    for read in (read_text, read_old_text):
        with pytest.raises(DAMAGED):
            read(text)


@given(st.lists(PROFILES, max_size=9))
def test_no_login_takes_the_place_of_another_server(logins: list[Profile]) -> None:
    profiles = Profiles()
    for profile in logins:
        name = profiles.name_for(profile.url)
        assert is_name(name)
        assert name not in profiles.kept or profiles.kept[name].url == profile.url
        profiles = profiles.having(name, profile)
        assert profiles.default == profiles.at(profile.url) == name
    assert {p.url for p in profiles.kept.values()} == {p.url for p in logins}
    for name in list(profiles.kept):
        profiles = profiles.without(name)
        # What is meant changes to nothing that nobody named.
        assert profiles.default in (None, *profiles.kept)
    assert profiles == Profiles()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "second", QUIET) as daemon:
        yield daemon


def log_in(ctl: Ctl, daemon: Daemon, *words: str) -> subprocess.CompletedProcess[str]:
    """By the admin token, in the environment; the server is verified, so nothing is asked."""
    cafile = str(daemon.state_dir / "tls" / "certificate.pem")
    where = (daemon.address, *words, "--token", "-", "--cafile", cafile)
    done = ctl("login", *where, SYSADMCTL_TOKEN=daemon.token)
    assert done.returncode == 0, done.stderr
    return done


def url_of(ctl: Ctl, *words: str, **more: str) -> str:
    """Of the server that answers there."""
    (said,) = lines(ctl("identify", "--json", *words, **more))
    return str(said["pin"])


def pin_of(ctl: Ctl, name: str) -> str:
    return str(read_profiles(ctl.home)["profiles"][name]["pin"])


def test_several_are_kept_and_the_newest_is_meant(
    shared: Daemon, second: Daemon, ctl: Ctl
) -> None:
    log_in(ctl, shared, "one")
    log_in(ctl, second, "two")
    assert profiles_file(ctl.home).stat().st_mode & 0o777 == 0o600
    one, two = pin_of(ctl, "one"), pin_of(ctl, "two")
    assert url_of(ctl) == two
    assert url_of(ctl, "--profile", "one") == one
    assert url_of(ctl, SYSADMCTL_PROFILE="one") == one
    # An option wins over the environment, and a directory in that over a profile there.
    assert url_of(ctl, "--profile", "two", SYSADMCTL_PROFILE="one") == two
    directory = str(shared.state_dir)
    assert url_of(ctl, SYSADMCTL_PROFILE="two", SYSADMD_STATE_DIR=directory) == one
    assert url_of(ctl, "--profile", "two", SYSADMD_STATE_DIR=directory) == two
    assert url_of(ctl, "--profile", "local", SYSADMD_STATE_DIR=directory) == one
    # By its address, however that is written.
    assert url_of(ctl, "--url", shared.address) == one
    listed = lines(ctl("profiles", "--json"))
    assert [(p["name"], p["default"], p["url"], p["login"]) for p in listed] == [
        ("one", False, shared.url, "token"),
        ("two", True, second.url, "token"),
    ]
    assert ctl("profiles", "use", "one").returncode == 0
    assert url_of(ctl) == one
    table = [row.split() for row in ctl("profiles").stdout.splitlines()]
    assert table[0] == ["NAME", "LOGIN", "SERVER", "KEY", "URL"]
    assert table[1] == ["*", "one", "token", one[:12], shared.url]
    assert table[2] == ["two", "token", two[:12], second.url]


def test_a_profile_that_there_is_not_names_those_that_there_are(
    shared: Daemon, ctl: Ctl
) -> None:
    none = ctl("jobs", "--profile", "web")
    assert none.returncode == 2
    assert "there is no profile 'web'; there is none yet; `sysadmctl login HOST`" in none.stderr
    log_in(ctl, shared, "one")
    for words in (("jobs", "--profile", "web"), ("logout", "web"), ("profiles", "use", "web")):
        done = ctl(*words)
        assert done.returncode == 2
        assert "there is no profile 'web'; there are one, local" in done.stderr
    named = ctl("jobs", SYSADMCTL_PROFILE="web")
    assert named.returncode == 2
    assert "no profile 'web', which SYSADMCTL_PROFILE names" in named.stderr
    for words in (("--url", shared.url), ("--state-dir", "/x"), ("--bridge", "b:1")):
        done = ctl("jobs", "--profile", "one", *words)
        assert done.returncode == 2
        assert "there is one" in done.stderr


@pytest.mark.parametrize("name", ["local", "", "a b", "-x", "a\nb"])
def test_some_names_are_none(shared: Daemon, ctl: Ctl, name: str) -> None:
    done = ctl("login", "--", shared.address, name)
    assert done.returncode == 2
    assert "a profile can't be called" in done.stderr or "say where" in done.stderr


def test_a_host_that_can_name_no_profile_is_refused(ctl: Ctl) -> None:
    done = ctl("login", "--", "-x")
    assert done.returncode == 2
    assert "a profile can't be called" in done.stderr


def test_who_is_logged_out_means_no_other_server(
    shared: Daemon, second: Daemon, ctl: Ctl
) -> None:
    log_in(ctl, shared, "one")
    log_in(ctl, second, "two")
    done = ctl("logout")
    assert done.returncode == 0
    assert "`sysadmctl profiles use NAME`; there are one, local" in done.stderr
    # Somebody else has made that token.
    assert f"given for {second.url} stays valid there" in done.stderr
    with second.client() as client:
        assert client.ask("rpc", "identify")
    lost = ctl("run", "--", "true")
    assert lost.returncode == 2
    assert "no profile is the default one" in lost.stderr
    assert ctl("jobs", "--profile", "one").returncode == 0
    assert ctl("profiles", "use", "local").returncode == 0
    here = ctl("jobs", SYSADMD_STATE_DIR=str(second.state_dir))
    assert here.returncode == 0
    assert ctl("logout").returncode == 2
    assert ctl("logout", "one").returncode == 0
    assert not profiles_file(ctl.home).exists()
    assert ctl("logout").returncode == 1


def test_a_login_again_keeps_its_name_and_others_get_another(
    shared: Daemon, second: Daemon, ctl: Ctl
) -> None:
    # The address alone: both are of one host.
    log_in(ctl, shared)
    log_in(ctl, second)
    log_in(ctl, shared)
    port = second.address.rpartition(":")[2]
    names = ["127.0.0.1", f"127.0.0.1:{port}"]
    assert sorted(read_profiles(ctl.home)["profiles"]) == names
    assert read_profiles(ctl.home)["default"] == names[0]
    # By its name, where the server is known: nothing is asked.
    again = ctl("login", names[1], "--token", "-", text=f"{second.token}\n")
    assert again.returncode == 0, again.stderr
    assert read_profiles(ctl.home)["default"] == names[1]
    # As it is meant otherwise.
    assert ctl("login", "--token", "-", text=f"{second.token}\n").returncode == 0
    other = log_in(ctl, shared, names[1])
    assert f"the profile {names[1]} was for {second.url} before" in other.stderr


def test_the_one_profile_of_earlier_versions_is_read_and_goes_over(
    shared: Daemon, second: Daemon, ctl: Ctl
) -> None:
    log_in(ctl, shared)
    old = profiles_file(ctl.home).with_name("profile.json")
    old.write_text(json.dumps(default_profile(ctl.home)))
    pin = pin_of(ctl, "127.0.0.1")
    profiles_file(ctl.home).unlink()
    assert url_of(ctl) == pin
    (listed,) = lines(ctl("profiles", "--json"))
    assert (listed["name"], listed["default"]) == ("127.0.0.1", True)
    log_in(ctl, second, "two")
    assert not old.exists()
    assert url_of(ctl, "--profile", "127.0.0.1") == pin


def test_logins_at_once_lose_none(shared: Daemon, ctl: Ctl) -> None:
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    words = ["--token", shared.token, "--cafile", cafile]
    running = [
        subprocess.Popen(
            ctl.command("login", shared.address, f"n{number}", *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=ctl.environment({}),
        )
        for number in range(4)
    ]
    assert [process.wait() for process in running] == [0] * 4
    assert sorted(read_profiles(ctl.home)["profiles"]) == [f"n{n}" for n in range(4)]


def test_no_file_elsewhere_is_made_by_a_link_in_place_of_the_lock(
    ctl: Ctl, tmp_path: Path
) -> None:
    profiles_file(ctl.home).parent.mkdir(parents=True)
    (profiles_file(ctl.home).parent / "profiles.lock").symlink_to(tmp_path / "elsewhere")
    refused = ctl("profiles", "use", "local")
    assert refused.returncode == 1
    assert "profiles.json can't be written" in refused.stderr
    assert not (tmp_path / "elsewhere").exists()


def test_a_damaged_file_is_set_aside_by_a_login(shared: Daemon, ctl: Ctl) -> None:
    log_in(ctl, shared)
    change_default(ctl.home, url="nowhere")
    file = profiles_file(ctl.home)
    text = file.read_text()
    assert ctl("jobs").returncode == 69
    assert ctl("profiles").returncode == 69
    done = log_in(ctl, shared)
    assert f"{file} is damaged" in done.stderr
    assert file.with_name("profiles.json.damaged").read_text() == text
    assert ctl("jobs").returncode == 0
    # What can't be read is nobody's to replace.
    file.unlink()
    file.mkdir()
    cafile = str(shared.state_dir / "tls" / "certificate.pem")
    words = ("login", shared.address, "--cafile", cafile, "--token", shared.token)
    refused = ctl(*words)
    assert refused.returncode == 69
    assert f"{file} can't be read" in refused.stderr


def test_a_bridge_is_a_profile_too(tmp_path: Path, ctl: Ctl, shared: Daemon) -> None:
    with Bridged(tmp_path) as bridged:
        bridged.let_in("me")
        bridged.server("web1", ["me"])
        cafile = str(bridged.bridge.state_dir / "tls" / "certificate.pem")
        where = (bridged.bridge.address, "hub", "--cafile", cafile)
        asked = ctl("login", *where, "--token", "x")
        assert asked.returncode == 1
        assert "is a bridge, where one logs in by a key: `sysadmctl login" in asked.stderr
        done = ctl("login", *where, "--key", str(bridged.key_file("me")))
        assert done.returncode == 0, done.stderr
        server = ("--server", bridged.id("web1"))
        assert ctl("jobs", *server).returncode == 0
        # It is the only bridge: what is meant otherwise does not matter.
        log_in(ctl, shared, "one")
        assert ctl("jobs", *server).returncode == 0
        assert ctl("jobs", *server, "--profile", "hub").returncode == 0
        wrong = ctl("jobs", *server, "--profile", "one")
        assert wrong.returncode == 2
        assert "'one' is no profile of a bridge" in wrong.stderr
        unnamed = ctl("jobs", "--profile", "hub")
        assert unnamed.returncode == 2
        assert "`sysadmctl servers` lists" in unnamed.stderr
        (bridge,) = (p for p in lines(ctl("profiles", "--json")) if p["bridge"])
        assert (bridge["name"], bridge["login"]) == ("hub", "key")
