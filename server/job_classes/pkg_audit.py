"""What `pkg audit --raw=json-compact` found. Pure: the whole output in, fields out.

Source: pkg 2.8.4, src/audit.c; tests/corpus/pkg/audit-raw-json.json. Other text may stand
before the JSON. The exit status says nothing: it is 1 where packages are vulnerable, and where
there is no database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from server.job_classes.pkg_state import as_name
from sysadmd.text import printable

# Bytes of output that are kept: a machine with all its packages vulnerable needs a tenth.
MOST_OUTPUT: Final = 4 * 1024 * 1024
# Bytes of JSON: of each list of names, and of the vulnerabilities.
_NAMES_SIZE: Final = 16 * 1024
_ISSUES_SIZE: Final = 56 * 1024
# Places in the text where the JSON may begin that are tried.
_TRIES: Final = 8
_START: Final = re.compile(r'\{"pkg_count"|^\{', re.MULTILINE)
_ID: Final = re.compile(
    r"/(?P<id>[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?:\.html)?"
)

_encode: Final = msgspec.json.Encoder().encode
_decoder: Final = json.JSONDecoder(strict=False)


def audit_fields(output: bytes) -> dict[str, Any]:
    """The fields of an audit; none, if no JSON was found.

    vulnerable_pkgs, impacts_pkgs: sorted names, of the packages and of those that need them.
    vulnerabilities: {name: {"version", "issues": [{"id", "description", "cve": [...], "url",
    "affected": [...]}]}}: all texts, "" where pkg says nothing; `id` is the entry in VuXML.
    What has no room is left out, and `<field>_left_out` says how many entries that were.
    """
    packages = _packages(output.decode(errors="replace"))
    if packages is None:
        return {}
    entries = {as_name(name): _entry(value) for name, value in packages.items()}
    needing = {
        name
        for value in packages.values()
        for name in map(as_name, _list(value, "reverse dependencies"))
    }
    fields: dict[str, Any] = {}
    for field, names in (("vulnerable_pkgs", entries), ("impacts_pkgs", needing)):
        _put(fields, field, sorted(name for name in names if name))
    kept, room = dict[str, Any](), _ISSUES_SIZE
    for name in sorted(entries):
        size = len(_encode({name: entries[name]}))
        if name and size <= room:
            kept[name] = entries[name]
            room -= size
    fields["vulnerabilities"] = kept
    _left_out(fields, "vulnerabilities", len(entries) - ("" in entries) - len(kept))
    return fields


def _packages(text: str) -> dict[str, object] | None:
    """What stands in the JSON under `packages`; None: there is no JSON."""
    for tries, found in enumerate(_START.finditer(text)):
        if tries >= _TRIES:
            break
        try:
            value: object = _decoder.raw_decode(text, found.start())[0]
        except (ValueError, RecursionError):
            continue
        if not isinstance(value, dict):
            continue
        answer = cast("dict[str, object]", value)
        count, packages = answer.get("pkg_count"), answer.get("packages")
        if isinstance(packages, dict):
            return cast("dict[str, object]", packages)
        if packages is None and count == 0 and not isinstance(count, bool):
            return {}
    return None


def _entry(value: object) -> dict[str, Any]:
    return {
        "version": _text(value, "version"),
        "issues": [_issue(issue) for issue in _list(value, "issues")],
    }


def _issue(value: object) -> dict[str, Any]:
    url = _text(value, "url")
    found = _ID.search(url)
    return {
        "id": found["id"].lower() if found else "",
        "description": _text(value, "description"),
        "cve": _texts(value, "cve"),
        "url": url,
        "affected": _texts(value, "Affected versions"),
    }


def _text(value: object, key: str) -> str:
    found = cast("dict[str, object]", value).get(key) if isinstance(value, dict) else None
    return printable(found) if isinstance(found, str) else ""


def _list(value: object, key: str) -> list[object]:
    found = cast("dict[str, object]", value).get(key) if isinstance(value, dict) else None
    return cast("list[object]", found) if isinstance(found, list) else []


def _texts(value: object, key: str) -> list[str]:
    return [printable(text) for text in _list(value, key) if isinstance(text, str)]


def _put(fields: dict[str, Any], field: str, names: Iterable[str]) -> None:
    """As many of the names as there is room for."""
    kept, room, left_out = list[str](), _NAMES_SIZE, 0
    for name in names:
        room -= len(_encode(name)) + 1
        if room >= 0:
            kept.append(name)
        else:
            left_out += 1
    fields[field] = kept
    _left_out(fields, field, left_out)


def _left_out(fields: dict[str, Any], field: str, count: int) -> None:
    if count > 0:
        fields[f"{field}_left_out"] = count
