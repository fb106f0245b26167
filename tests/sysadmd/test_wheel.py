"""What a wheel installs, and what starts differently from one."""

import importlib.util
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.kit import DEADLINE, ROOT, needed
from tests.kit.processes import clean


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment, and in it a wheel of this tree, without what that depends on."""
    if importlib.util.find_spec("hatchling") is None:
        needed("hatchling")
    wheels, prefix = (tmp_path_factory.mktemp(name) for name in ("wheels", "prefix"))
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=DEADLINE)
    (wheel,) = wheels.iterdir()
    venv.create(prefix, with_pip=False)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python")),
            *("install", "--quiet", "--no-deps", "--no-index", "--no-compile", str(wheel)),
        ],
        check=True,
        timeout=DEADLINE,
    )
    return prefix


def site_packages(prefix: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(prefix)}))


def test_every_file_is_where_the_document_says_and_no_other(prefix: Path) -> None:
    text = (ROOT / "docs" / "install-freebsd.md").read_text()
    table = re.search(r"## What is where\n[^|]*((?:\|[^\n]*\n)+)", text)
    assert table is not None
    named = {
        re.sub(r"python3\.\d+", site_packages(prefix).parent.name, path)
        for row in table[1].splitlines()
        for path in re.findall(r"`([^`]+/[^`]+)`", row.split("|")[1])
    }
    missing = {path for path in named if not (prefix / path).exists()}
    assert not missing
    outside = {
        str(path.relative_to(prefix))
        for folder in ("etc", "share")
        for path in (prefix / folder).rglob("*")
        if path.is_file()
    }
    assert outside <= named


def test_site_packages_get_one_name(prefix: Path) -> None:
    names = {path.name for path in site_packages(prefix).iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"sysadmd"}


def test_only_what_is_run_may_be_run(prefix: Path) -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shared = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    for target in shared.values():
        runs = bool((prefix / target).stat().st_mode & 0o111)
        assert runs == target.startswith("etc/rc.d/"), target


def test_the_keeper_starts_without_site_packages(prefix: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    (state_dir / "keeper").mkdir(parents=True)
    program = site_packages(prefix) / "sysadmd" / "__main__.py"
    words = ["keeper", str(state_dir), "id", "0", "{}"]
    said = tmp_path / "said"
    try:
        # Not into a pipe: guard and keeper would hold its end.
        with said.open("w") as out:
            command = [sys.executable, "-I", "-S", str(program), *words]
            done = subprocess.run(command, stderr=out, timeout=DEADLINE, check=False)
        assert done.returncode == 0, said.read_text()
    finally:
        clean(state_dir)
