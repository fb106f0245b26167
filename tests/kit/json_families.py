"""Texts for the reader of requests, of any size: each family once cost, or might, too much."""

from collections.abc import Callable, Mapping
from typing import Final

HEAD: Final = '{"namespace":"rpc","name":"identify","id":"x","args":'


def _listed(unit: str, end: str = "]}") -> Callable[[int], str]:
    """A request whose arguments are a list of so many of these."""
    return lambda size: f"{HEAD}[{(unit + ',') * (size // (len(unit) + 1))}{unit}{end}"


def _between(unit: str, before: str = "", behind: str = "") -> Callable[[int], str]:
    return lambda size: before + unit * (size // len(unit)) + behind


def _keys(size: int) -> str:
    keys = ",".join(f'"{number:06x}":0' for number in range(size // 11))
    return f"{HEAD}{{{keys}}}}}"


# Name -> what makes a text of about so many characters, all of them ASCII.
FAMILIES: Final[Mapping[str, Callable[[int], str]]] = {
    "escaped quotes that do not end": _between('\\"', "[" * 65 + '"'),
    "escaped quotes": _between('\\"', f'{HEAD}"', '"}'),
    "backslashes": _between("\\\\", f'{HEAD}"', '"}'),
    "escapes that are wrong": _between("\\", f'{HEAD}"'),
    "empty objects": _listed("{}"),
    "empty lists": _listed("[]"),
    # As many as a request may have.
    "lists among strings": _listed('[],"12"'),
    "objects among strings": _listed('{},"12"'),
    "small objects": _listed('{"":0}'),
    "small objects that do not end": _listed('{"":0}', ""),
    "doubled keys": _listed('{"":{"":0}}', ',{"a":1,"a":1}]}'),
    "one object": _keys,
    "empty strings": _listed('""'),
    "strings that do not end": _between('"', HEAD),
    "one string": _between("x", f'{HEAD}"', '"}'),
    "one string that does not end": _between("x", f'{HEAD}"'),
    "pairs": _between("\\ud83d\\ude00", f'{HEAD}"', '"}'),
    "pairs in a list": _listed('"\\ud83d\\ude00"'),
    "halves": _between("\\ud83d", f'{HEAD}"', '"}'),
    "one half at the end": _listed("[]", ',"\\ud800"]}'),
    "digits": _between("1", HEAD, "}"),
    "digits in strings": _listed('"' + "1" * 40 + '"'),
    "small numbers": _listed("1"),
    "exponents": _listed("1e1"),
    "long numbers": _listed("1" * 32),
    "fractions": _listed("0." + "1" * 30),
    "no number at the end": _listed("[]", ",NaN]}"),
    "words": _listed("null"),
    "deep lists": _listed("[" * 60 + "]" * 60),
    "deep objects": _listed('{"":' * 60 + "0" + "}" * 60),
    "deeper lists": _listed("[" * 70 + "]" * 70),
    "ever deeper lists": _between("[", HEAD),
    "ever deeper objects": _between('{"":', HEAD),
    "blanks": _between(" "),
    "blanks in a request": _between(" ", HEAD, "1}"),
    "lines": _between("\n", behind="x"),
    "commas": _between(",", f"{HEAD}["),
    "brackets that close": _between("]"),
    "ids": _between("x", '{"namespace":"rpc","name":"identify","id":"', '"}'),
    "names": _between("x", '{"namespace":"rpc","id":"x","name":"', '"}'),
}
