"""docs/api.md says what really is: its examples, asked of a running daemon."""

from __future__ import annotations

from pathlib import Path

from server.job_classes.all import CLASSES
from server.job_classes.update_conf import WITHOUT
from tests.kit.api import DOCUMENT, examples, form, stage


def test_the_examples_are_as_they_are_shown(tmp_path: Path) -> None:
    blocks = examples(DOCUMENT.read_text())
    with stage(tmp_path) as play:
        results = play(blocks)
    assert len(blocks) == len(results)
    for block, result in zip(blocks, results, strict=True):
        if result is not None:
            assert result == form(block.value), block.text


def test_every_action_of_every_class_has_an_example() -> None:
    asked = {
        (block.kind.split()[1], block.value["action"])
        for block in examples(DOCUMENT.read_text())
        if block.kind.startswith("request sysadm/")
    }
    there = {(one.name, action) for one in CLASSES for action in one.actions}
    assert there <= asked


def test_every_setting_without_a_counterpart_is_named_with_its_reason() -> None:
    text = DOCUMENT.read_text()
    for key in WITHOUT:
        assert f"| `{key}` |" in text


def test_every_action_of_the_original_that_is_missing_is_named() -> None:
    text = DOCUMENT.read_text()
    actions = {action for one in CLASSES for action in one.actions}
    for name in (
        *("adddisk", "create", "delete", "deletedisk", "install", "renameiso", "resizedisk"),
        *("rmiso", "setup", "getprops", "setprop", "pkg_install_verify"),
    ):
        assert name not in actions
        assert f"`{name}`" in text.partition("### What is not there")[2]
