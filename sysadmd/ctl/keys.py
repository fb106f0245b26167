"""`sysadmctl key`: keys made here, registered with a server, listed and revoked there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sysadmd.client import Target, connect
from sysadmd.ctl import profile
from sysadmd.ctl.login import end_token, own_label, registered_keys
from sysadmd.ctl.output import Printer
from sysadmd.ctl.profiles import Profile
from sysadmd.errors import Conflict, NotFound, SysadmdError
from sysadmd.key_file import make_key, read_key, read_public


def new_key(printer: Printer, file: Path | None) -> int:
    """Make a key, and say what it is known by."""
    if file is None:
        file = profile.key_path()
        try:
            profile.make_folder()
        except OSError as error:
            raise SysadmdError(f"{file.parent} can't be made: {error.strerror}") from error
    file = file.absolute()
    fingerprint = make_key(file).public.fingerprint
    if printer.as_json:
        printer.value({"fingerprint": fingerprint, "file": str(file)})
    else:
        printer.line(f"{fingerprint} in {file}")
        printer.note("`sysadmctl key register` makes it known to a server")
    return 0


def show_key(printer: Printer, file: Path | None) -> int:
    """Its public part, in PEM."""
    path = (file or profile.key_path()).absolute()
    public = read_key(path).public
    pem = public.pem.decode("ascii")
    if printer.as_json:
        printer.value({"fingerprint": public.fingerprint, "public": pem, "file": str(path)})
    else:
        for line in pem.splitlines():
            printer.line(line)
    return 0


async def register_key(
    target: Target,
    printer: Printer,
    *,
    file: Path | None,
    public: Path | None,
    nickname: str | None,
    user: str | None,
) -> int:
    """Let a key log in: that of `file`, of the default file, or a `public` one of anybody's.

    user: the account that it is for; our own otherwise. Our own key becomes how we log in from
    there on, if it is the profile that we have logged in by.
    """
    from sysadmd.keys import as_text

    own = None if public else (file or profile.key_path()).absolute()
    key = read_key(own).public if own else read_public(public or Path())
    profiles = profile.load()
    # Those that we have logged in as.
    ours = [name for name, kept in profiles.kept.items() if kept.target() == target]
    args = {
        "action": "register_ssl_cert",
        "pub_key": as_text(key.pem),
        "nickname": own_label() if nickname is None else nickname,
        **({"user": user} if user is not None else {}),
    }
    async with connect(target) as client:
        await client.request("rpc", "settings", args)
        registered = [entry async for entry in registered_keys(client)]
    found = [entry for entry in registered if entry["fingerprint"] == key.fingerprint]
    if not found:
        raise NotFound(f"the key {key.fingerprint} was registered, and revoked at once")
    if printer.as_json:
        printer.value(found[0])
    else:
        printer.line(f"registered {_named(found[0])}")
    if own is None or user is not None or not ours:
        # Somebody else has registered it, perhaps.
        return 0
    name = profiles.default if profiles.default in ours else ours[0]
    kept = profiles.kept[name]
    new = Profile(kept.url, "", kept.pin, key.fingerprint, str(own))
    return await _go_over(name, kept, new, printer)


async def _go_over(name: str, old: Profile, new: Profile, printer: Printer) -> int:
    """Log in by a key from now on."""
    if new.key == old.key:
        return 0
    try:
        # As long as there still is the other way in.
        async with connect(new.target()):
            pass
    except SysadmdError as error:
        printer.note(f"{error}; it is registered, and the login stays what it was")
        return 1
    profile.change(name, new)
    if old.key is not None:
        printer.note(
            f"login by this key instead of that of {old.key}, which stays registered:"
            f" `sysadmctl key revoke {old.name}` ends that"
        )
        return 0
    printer.note(f"login by key instead of a token: the profile {name} names {new.key} now")
    await end_token(old, printer)
    return 0


async def list_keys(target: Target, printer: Printer) -> int:
    """Keys that are registered: of this account; with the role full those of all."""
    async with connect(target) as client:
        found = [key async for key in registered_keys(client)]
    if printer.as_json:
        for key in found:
            printer.value(key)
        return 0
    rows: list[list[tuple[str, str | None]]] = []
    for key in found:
        cells = (key["account"], key["nickname"], key["kind"], key["fingerprint"])
        rows.append([*((str(cell), None) for cell in cells), (str(key["used"] or "-"), None)])
    printer.table(["ACCOUNT", "NICKNAME", "KIND", "FINGERPRINT", "USED"], rows)
    return 0


async def revoke_key(target: Target, printer: Printer, name: str) -> int:
    """Let a key log in no more. name: its fingerprint, or a nickname that no other has.

    Raises: NotFound, Conflict.
    """
    async with connect(target) as client:
        key = _meant([key async for key in registered_keys(client)], name)
        args = {"action": "revoke_ssl_cert", "fingerprint": key["fingerprint"]}
        await client.request("rpc", "settings", {**args, "user": key["account"]})
    if printer.as_json:
        printer.value({"revoked": key["fingerprint"]})
    else:
        printer.line(f"revoked {_named(key)}")
    for name, kept in profile.load().kept.items():
        if kept.key and kept.name == key["fingerprint"] and kept.url == target.url:
            printer.note(
                f"{kept.url} was logged in to by it; `sysadmctl login {name}` logs in again"
            )
    return 0


def _meant(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The key of that name. Raises: NotFound, Conflict."""
    named = [key for key in found if key["fingerprint"] == name] or [
        key for key in found if key["nickname"] == name
    ]
    if not named:
        raise NotFound(f"there is no key {name!r}; `sysadmctl key list` shows those there are")
    if len(named) > 1:
        known = ", ".join(f"{key['fingerprint']} of {key['account']}" for key in named)
        raise Conflict(
            f"{len(named)} keys are called {name!r}; name one by its fingerprint: {known}"
        )
    return named[0]


def _named(key: dict[str, Any]) -> str:
    return f"{key['nickname'] or 'the key'} ({key['fingerprint']}) of {key['account']}"
