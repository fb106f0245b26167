"""What starts differently from a wheel: there the other rooms lie inside the package."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit import DEADLINE, ROOT
from tests.kit.processes import clean


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """The files where a wheel puts them; the path of the program."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    for folder in wheel["targets"]["wheel"]["only-include"]:
        there = wheel["targets"]["wheel"]["sources"].get(folder, folder)
        shutil.copytree(ROOT / folder, tmp_path / there, dirs_exist_ok=True)
    return tmp_path / "sysadmd" / "__main__.py"


def test_the_keeper_starts_without_site_packages(program: Path, tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    (state_dir / "keeper").mkdir(parents=True)
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
