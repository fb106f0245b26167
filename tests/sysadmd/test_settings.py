"""Configuration: defaults, the sample, and every mistake by its key."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysadmd.errors import SettingsInvalid
from sysadmd.settings import Address, Settings, build_settings, read_settings
from tests.kit.settings_keys import leaves

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_sample_names_every_key_with_its_default_and_nothing_else() -> None:
    sample = ROOT / "sysadmd.toml.sample"
    assert set(leaves(tomllib.loads(sample.read_text()))) == set(leaves(Settings()))
    assert read_settings(sample) == Settings()


def test_five_mistakes_yield_five_lines(tmp_path: Path) -> None:
    file = tmp_path / "sysadmd.toml"
    file.write_text(
        """
        state_dri = "/x"
        [server]
        listen = ["127.0.0.1:12150", "nowhere"]
        dialect = "klingon"
        [dispatcher]
        event_log_limit = "1MiB"
        [dispatcher.queues]
        pkg_queue = 0
        """
    )
    with pytest.raises(SettingsInvalid) as raised:
        read_settings(file)
    keys = [problem.split(": ")[:2] for problem in raised.value.problems]
    assert sorted(keys) == sorted(
        [str(file), key]
        for key in (
            "state_dri",
            "server.listen[1]",
            "server.dialect",
            "dispatcher.event_log_limit",
            "dispatcher.queues.pkg_queue",
        )
    )
    text = "\n".join(raised.value.problems)
    assert "documented" in text and "1KiB" in text


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    with pytest.raises(SettingsInvalid) as raised:
        read_settings(file)
    assert all(problem.startswith(f"{file}: ") for problem in raised.value.problems)
    assert not any("\n" in problem for problem in raised.value.problems)
    return [problem.removeprefix(f"{file}: ") for problem in raised.value.problems]


def test_no_mistake_hides_another(tmp_path: Path) -> None:
    found = problems(
        tmp_path / "sysadmd.toml",
        """
        [server]
        bogus = 1
        listen = []
        max_clients = "x"
        tls = {certificate = "/c"}
        """,
    )
    keys = [problem.partition(":")[0] for problem in found]
    assert sorted(keys) == [
        "server.bogus",
        "server.listen",
        "server.max_clients",
        "server.tls.key",
    ]


def test_a_wrong_file_of_the_pair_is_not_called_missing(tmp_path: Path) -> None:
    (found,) = problems(tmp_path / "c", 'server.tls = {certificate = "/c", key = 5}')
    assert found.startswith("server.tls.key: is 5; allowed: text")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (f"log_level = {'9' * 5000}", "not TOML"),
        (f"log_level = 0x{'f' * 5000}", "log_level"),
        (f"server.max_clients = 0x{'f' * 5000}", "server.max_clients"),
        (f"dispatcher.event_log_limit = 0x{'f' * 5000}", "dispatcher.event_log_limit"),
        (r'state_dir = "a\u0000b"', "state_dir"),
        (r'auth.full = ["root", "a\u0000b"]', "auth.full[1]"),
        (r'"a\nb" = 1', r'"a\nb"'),
        ('"a.b" = 1', '"a.b"'),
        (r'dispatcher.queues."x\ny" = 1', r'dispatcher.queues."x\ny"'),
    ],
)
def test_odd_texts_are_mistakes_on_one_line(tmp_path: Path, text: str, key: str) -> None:
    (found,) = problems(tmp_path / "sysadmd.toml", text)
    assert found.startswith(f"{key}: ")


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(("state_dir", "server", "auth", "collectors", "dispatcher", "x")),
        TREES | st.dictionaries(st.sampled_from(("listen", "tls", "queues", "zpool")), TREES),
    )
)
def test_any_table_gives_settings_or_the_problems(table: dict[str, object]) -> None:
    try:
        assert isinstance(build_settings(table), Settings)
    except SettingsInvalid as error:
        assert all(": " in problem for problem in error.problems)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:0", "127.0.0.1", 0), ("[::1]:12150", "::1", 12150), ("a.b:1", "a.b", 1)],
)
def test_addresses_are_read(text: str, host: str, port: int) -> None:
    address = Address(text)
    assert (address.host, address.port, str(address)) == (host, port, text)


@pytest.mark.parametrize("text", ["", "127.0.0.1", "::1:80", "a:70000", "a:b", "[::1]", ":1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ADDRESS:PORT"):
        Address(text)
