"""Reading and changing freebsd-update.conf: what is kept, what refused, how it is replaced."""

from __future__ import annotations

import os
import shutil
import string
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.job_classes.update_conf import (
    COUNTERPARTS,
    WITHOUT,
    changed,
    replace_file,
    settings,
)
from tests.kit import needs_root

# The beginning of FreeBSD 13.2's own, and lines that are hard.
CONF = """\
# Trusted keyprint.  Changing this is a Bad Idea unless you've received
KeyPrint 800651ef4b4c71c27e60786d7b487188970f4b4169cc055784e21eb71d410cc5

# Server or server pool from which to fetch updates.
ServerName update.FreeBSD.org

# Components of the base system which should be kept updated.
\tComponents   src world\tkernel  # all of them

# Example for updating the userland and the kernel source code only:
# Components src/base src/sys world
IgnorePaths /boot/kernel/linker.hints
MergeChanges /etc/ /boot/device.hints
"""


def test_the_settings_are_read_as_freebsd_update_reads_them() -> None:
    assert settings(CONF) == {
        "package_set": "src world kernel",
        "package_url": "update.FreeBSD.org",
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", {}),
        ("ServerName\nComponents\n", {}),
        ("servername a\n#ServerName b\nServerNames c\n", {}),
        ("ServerName a b # c\n", {"package_url": "a"}),
        ("ServerName a#b\n", {"package_url": "a"}),
        ("ServerName a\nServerName b\n", {"package_url": "a"}),
        ("Components src\nComponents world\n", {"package_set": "src world"}),
        ("Components src \\\nworld\n", {"package_set": "src world"}),
        ("# note \\\nServerName a\n", {}),
        ("# note \\\\\nServerName a\n", {"package_url": "a"}),
        ("Server\\Name a\n", {"package_url": "a"}),
        ("ServerName a", {"package_url": "a"}),
        ("ServerName a\x1b[31m\r\n", {"package_url": "a\\x1b[31m\\r"}),
    ],
)
def test_odd_files_are_read_as_well(text: str, found: Mapping[str, str]) -> None:
    assert settings(text) == found


def test_a_line_is_changed_where_it_stands_and_no_other() -> None:
    new = changed(CONF, {"package_set": "world src/sys", "package_url": "update2.freebsd.org"})
    assert new == CONF.replace(
        "\tComponents   src world\tkernel  # all of them",
        "Components world src/sys # all of them",
    ).replace("ServerName update.FreeBSD.org", "ServerName update2.freebsd.org")


def test_what_is_so_already_changes_nothing() -> None:
    assert changed(CONF, settings(CONF)) == CONF
    assert changed(CONF, {}) == CONF
    assert changed("", {}) == ""


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ("", "ServerName a\n"),
        ("# c", "# c\nServerName a\n"),
        ("# c\\", "# c\\\n\nServerName a\n"),
        ("# c\\\n", "# c\\\n\nServerName a\n"),
        ("ServerName b", "ServerName a\n"),
        ("ServerName a", "ServerName a\n"),
        ("ServerName b # c\\", "ServerName a # c\\\n\n"),
        ("ServerName \\\nb\nX y\n", "ServerName a\nX y\n"),
        ("ServerName b # c\\\\\nX y\n", "ServerName a # c\\\\\nX y\n"),
        ("ServerName b\nX y\nServerName a # once\n", "ServerName a\nX y\n# once\n"),
        ("ServerName a\nServerName a\n", "ServerName a\n"),
    ],
)
def test_a_keyword_stands_there_once_and_takes_effect(text: str, new: str) -> None:
    assert changed(text, {"package_url": "a"}) == new
    assert settings(new) == {"package_url": "a"}


GOOD = {
    "package_set": [
        "src world kernel",
        "kernel",
        "world/base src/sys kernel/generic",
        "src/a/b.c",
    ],
    "package_url": ["update.FreeBSD.org", "a", "1.example", "192.0.2.1", "a-b.c", "x" * 63],
}
BAD: dict[str, list[Any]] = {
    "package_set": [
        *("", " ", "src ", " src", "src  world", "src\tworld", "src\nServerName evil", "src\n"),
        *("games", "src/", "src/..", "src/a..b", "src/*", "src/$(x)", "src/a;b", "src#", "Src"),
        *("src\\", "src\x1b", "src/ä", "src " * 300 + "src", None, 1, ["src"]),
    ],
    "package_url": [
        *("", " ", "a b", "-a", "a-", "a..b", ".a", "a.", "x" * 64, "a_b", "a/b", "http://a"),
        *("a\n", "a\nb", "a\\", "a#b", "a:80", "ä", "a\0", ".".join(["a"] * 128), None, True),
    ],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in GOOD.items() for v in vs])
def test_a_good_value_is_taken(key: str, value: str) -> None:
    assert settings(changed(CONF, {key: value}))[key] == value


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in BAD.items() for v in vs])
def test_a_bad_value_is_refused_by_name_and_with_what_is_allowed(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: .*allowed is ") as refused:
        changed(CONF, {key: value})
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("key", WITHOUT)
def test_a_setting_without_a_counterpart_says_why(key: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}: freebsd-update "):
        changed(CONF, {key: "1"})


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="'a\\\\n': no such setting; there are package_set, "):
        changed(CONF, {"a\n": "b"})


def test_every_setting_of_the_api_is_accounted_for() -> None:
    assert {*COUNTERPARTS, *WITHOUT} == {
        *("package_set", "package_url", "auto_update", "maxbe", "auto_update_reboot"),
        "cdn_type",
    }


LINES = st.lists(
    st.sampled_from(
        [
            *("ServerName a", "ServerName", "Components src", "Components world kernel # c"),
            *("# c", "#c\\", "\\", "Components \\", "", " ", "X y", "ServerName b#c\\\\"),
        ]
    )
    | st.text(max_size=20)
).map("\n".join)
WANTED = st.fixed_dictionaries(
    {},
    optional={key: st.sampled_from(values) for key, values in GOOD.items()},
)


@given(LINES, WANTED)
def test_what_was_changed_is_what_is_read_and_the_rest_stays(
    text: str, wanted: dict[str, str]
) -> None:
    new = changed(text, wanted)
    assert settings(new) == settings(text) | wanted
    assert changed(new, wanted) == new
    assert not new or new.endswith("\n")
    assert text.count("#") <= new.count("#") or "\\" in text


@given(st.text(alphabet=string.printable), st.sampled_from(sorted(COUNTERPARTS)))
def test_no_value_brings_in_another_line(value: str, key: str) -> None:
    try:
        new = changed(CONF, {key: value})
    except ValueError:
        return
    assert new.count("\n") == CONF.count("\n")


@given(LINES.filter(lambda text: text.isascii() and "\0" not in text), WANTED)
def test_the_shell_reads_the_same(text: str, wanted: dict[str, str]) -> None:
    new = changed(text, wanted)
    # As parse_conffile does; globs and control characters are beyond the settings.
    if any(c in new for c in "*?[") or not printable_lines(new):
        return
    script = r"""
    set -f
    while read LINE; do
        set -- $(printf '%s\n' "$LINE" | cut -f 1 -d '#')
        case $1 in
        Components) shift; for C in "$@"; do printf 'C %s\n' "$C"; done ;;
        ServerName) printf 'S %s\n' "$2" ;;
        esac
    done
    """
    said = subprocess.run(
        [SHELL, "-c", script], input=new, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    components = " ".join(line[2:] for line in said if line.startswith("C "))
    servers = [line[2:] for line in said if line.startswith("S ") and line[2:]]
    assert settings(new).get("package_set", "") == components
    assert settings(new).get("package_url") == (servers[0] if servers else None)
    assert "package_url" not in wanted or servers == [wanted["package_url"]]


SHELL = shutil.which("dash") or "/bin/sh"


def printable_lines(text: str) -> bool:
    return all(c.isprintable() or c in "\t\n" for c in text)


def test_a_file_is_replaced_with_its_mode_kept(tmp_path: Path) -> None:
    path = tmp_path / "freebsd-update.conf"
    path.write_text("old")
    path.chmod(0o640)
    before = path.stat()
    replace_file(path, "new\n\udcff")
    assert path.read_bytes() == b"new\n\xff"
    assert path.stat().st_mode == before.st_mode
    assert path.stat().st_ino != before.st_ino
    assert list(tmp_path.iterdir()) == [path]


def test_of_a_link_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real = tmp_path / "there" / "real.conf"
    real.write_text("old")
    link = tmp_path / "link.conf"
    link.symlink_to("there/real.conf")
    replace_file(link, "new\n")
    assert link.is_symlink()
    assert real.read_text() == "new\n"
    assert list(real.parent.iterdir()) == [real]


def test_a_file_is_replaced_with_its_owner_kept(tmp_path: Path) -> None:
    needs_root()
    path = tmp_path / "a.conf"
    path.write_text("old")
    os.chown(path, 4711, 4712)
    path.chmod(0o4755)
    replace_file(path, "new\n")
    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)
    assert path.stat().st_mode & 0o7777 == 0o4755


def test_what_a_cut_off_replacement_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("old")
    (tmp_path / "a.conf.new").write_text("half")
    replace_file(path, "new\n")
    assert path.read_text() == "new\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["missing", "directory", "loop", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.conf"
    if what == "directory":
        path.mkdir()
    elif what == "loop":
        path.symlink_to("a.conf")
    elif what == "device":
        path.symlink_to("/dev/null")
    with pytest.raises(OSError, match=r"a\.conf|/dev/null"):
        replace_file(path, "new\n")
    assert {file.name for file in tmp_path.iterdir()} <= {"a.conf"}
