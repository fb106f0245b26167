"""The port for FreeBSD, as far as make(1) can tell without a ports tree."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import sysadmd
from tests.kit import ROOT, needs

PORT = ROOT / "packaging" / "freebsd"
# Python's own, but a port of its own.
BESIDE = {"sqlite3": ">0"}
_DEPENDENCY = re.compile(r"py311-([a-z0-9-]+)([<>=].*):[a-z-]+/py-([a-z0-9-]+)@py311")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """In place of the ports tree: the files that make(1) asks for, with nothing in them."""
    for name in ("sys.mk", "bsd.port.mk"):
        (tmp_path / name).touch()
    return tmp_path


def make(tree: Path, *words: str) -> str:
    program = "make" if sys.platform.startswith("freebsd") else "bmake"
    needs(program)
    given = ("PYTHON_PKGNAMEPREFIX=py311-", "PY_FLAVOR=py311")
    command = [program, "-m", str(tree), "-f", str(PORT / "Makefile"), *words, *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def dependencies(tree: Path, variable: str) -> dict[str, str]:
    """A variable's packages with the version that each needs; each has the port of its name."""
    found: dict[str, str] = {}
    for word in make(tree, "-V", f"${{{variable}}}").split():
        match = _DEPENDENCY.fullmatch(word)
        assert match is not None and match[1] == match[3], word
        found[match[1]] = match[2]
    return found


def test_it_needs_what_the_program_needs(tree: Path) -> None:
    wanted = dict(
        re.split(r"(?=[<>=])", text, maxsplit=1)
        for text in project()["project"]["dependencies"]
    )
    assert dependencies(tree, "RUN_DEPENDS") == wanted | BESIDE
    assert set(dependencies(tree, "BUILD_DEPENDS")) == set(
        project()["build-system"]["requires"]
    )
    extra = project()["project"]["optional-dependencies"]["fast"]
    assert set(dependencies(tree, "UVLOOP_RUN_DEPENDS")) == set(extra)


def test_it_is_of_this_version(tree: Path) -> None:
    assert make(tree, "-V", "DISTVERSION").strip() == sysadmd.__version__
    least = project()["project"]["requires-python"].removeprefix(">=")
    assert make(tree, "-V", "USES").strip() == f"python:{least}+"


def test_its_list_has_every_sample_that_the_wheel_brings() -> None:
    shared = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    samples = {path for path in shared.values() if re.fullmatch(r"etc/.*\.sample", path)}
    listed = (PORT / "pkg-plist").read_text()
    assert set(re.findall(r"^@sample (.*)$", listed, re.MULTILINE)) == samples


def test_its_service_scripts_are_those_of_the_source(tree: Path) -> None:
    shared = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    services = make(tree, "-V", "USE_RC_SUBR").split()
    assert {f"etc/rc.d/{name}" for name in services} == {
        path for path in shared.values() if path.startswith("etc/rc.d/")
    }
    assert {path.stem for path in (PORT / "files").iterdir()} == set(services)
    for name in services:
        text = (PORT / "files" / f"{name}.in").read_text()
        assert "%%PREFIX%%/bin/sysadmd" in text
        assert text.replace("%%PREFIX%%", "/usr/local") == (ROOT / "rc.d" / name).read_text()


def test_another_prefix_is_told_to_all_who_name_it(tree: Path) -> None:
    source = tree / "work"
    for name in ("sysadmd", "packaging"):
        shutil.copytree(ROOT / name, source / name)
    (source / "packaging" / "freebsd").rename(tree / "port")
    replace = "REINPLACE_CMD=sed -i.before"
    make(tree, "post-patch", f"WRKSRC={source}", "PREFIX=/opt/elsewhere", replace)
    for file in (*source.rglob("*.py"), *source.rglob("man/*.?")):
        text = file.read_text()
        assert "/usr/local/etc" not in text and "/usr/local/bin/sysadmd" not in text, file
    assert "/opt/elsewhere/etc" in (source / "sysadmd" / "machine.py").read_text()
