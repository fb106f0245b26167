"""sysadm/update: updates of the system, in the words of the original, whose tool is gone.

By freebsd-update(8), or by pkg(8) where the system is made of packages. What freebsd-update
says is read in `update_report`, its settings in `update_conf`. What is known of updates is what
the last jobs have reported: nothing else is kept.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from dispatcher.identity import boot_clock
from dispatcher.orders import Order, Origin
from dispatcher.records import JobRow
from dispatcher.reports import Fields, Report
from server.dialects.values import rfc3339
from server.job_classes import pkg, update_conf
from server.job_classes.definition import Action, Asked, JobClass, command, first_of, new_uuid
from server.job_classes.pkg_report import PkgReport
from server.job_classes.tool import ask
from server.job_classes.update_report import UpdateReport
from sysadmd.apart import in_time
from sysadmd.errors import BadRequest, Conflict, NotFound, ToolFailed
from sysadmd.machine import reason
from sysadmd.settings import ClassSettings
from sysadmd.text import quoted

NAME: Final = "sysadm/update"
CHECK: Final = "sysadm_update_checkupdates"
RUN: Final = "sysadm_update_runupdates::"
APPLY: Final = "sysadm_update_applyupdate::"
# How long the result of a check is good, s; for who insists. Source: the original.
GOOD_FOR: Final = 12 * 3600.0
GOOD_IF_FORCED: Final = 300.0
# Of all logs in one reply, bytes as JSON.
LOGS: Final = 400 * 1024
# A package that every system of packages has, and the repository of these. Source: pkgbase(7).
_BASE_PACKAGE: Final = "FreeBSD-runtime"
_BASE_REPOSITORY: Final = "FreeBSD-base"
_ASK_PKG: Final = 10.0
# What a status of a finished job means for who asks for updates.
_STATUSES: Final = {
    "noupdates": "noupdates",
    "installed": "noupdates",
    "updatesavailable": "updatesavailable",
    "runagain": "updatesavailable",
    "rebootrequired": "rebootrequired",
}


def _find(settings: ClassSettings) -> str | None:
    """freebsd-update, or pkg where the system is made of packages. Raises: ToolFailed if nobody
    can tell: the wrong one must not be taken for the other."""
    package_tool = first_of(settings.pkg)
    if package_tool is not None and Path(settings.pkg_database).exists():
        # It prints the name if it is installed, and nothing if not.
        answer = ask((package_tool, "query", "%n", _BASE_PACKAGE), _ASK_PKG)
        if answer.output.strip() == _BASE_PACKAGE:
            return package_tool
        if answer.errors.strip():
            raise ToolFailed(f"is the system made of packages? pkg query: {answer.reason}")
    return first_of(settings.freebsd_update)


def _is_packaged(asked: Asked) -> bool:
    return asked.tool == asked.settings.pkg


class _PackagedReport(PkgReport):
    """As of packages, with a status in the words of this class."""

    def __init__(self, accepted: Fields, told: Fields) -> None:
        self.installs = accepted.get("action") == "startupdate"
        action = "pkg_upgrade" if self.installs else "pkg_check_upgrade"
        super().__init__({"action": action}, told)

    def ended(self, result: str) -> Fields:
        fields = super().ended(result)
        known = {"true": "updatesavailable", "false": "noupdates"}
        status = known.get(str(fields.get("updates_available")))
        if self.installs and result == "succeeded":
            status = "installed"
        return fields if status is None else {**fields, "status": status}


def _report(accepted: Fields, told: Fields) -> Report:
    packaged = accepted.get("base") == "packages"
    return (_PackagedReport if packaged else UpdateReport)(accepted, told)


def _order(asked: Asked, id: str, action: str, *, install: bool) -> Order:
    if _is_packaged(asked):
        steps = ["upgrade", "-y" if install else "-n", "-r", _BASE_REPOSITORY]
        fields = {"action": action, "base": "packages"}
        setting, channel = pkg.setting(updates=True), "EVENT_PIPE"
    else:
        steps = ["--not-running-from-cron", "fetch", *(["install"] if install else ())]
        fields, setting, channel = {"action": action}, {"PAGER": "cat"}, None
    return Order(
        id=id,
        commands=(command(asked.tool, *steps),),
        # Packages of the system and others have one lock.
        queue=pkg.QUEUE if channel else None,
        origin=Origin(
            system=NAME,
            fields=fields,
            setting=setting,
            channel=channel,
            log_field="update_log",
        ),
    )


async def _check(asked: Asked) -> dict[str, Any]:
    """What is known of updates; if that is too old it is asked for."""
    force = asked.args.switch("force", default=False)
    async with asked.turn:
        jobs = await asked.jobs()
        found = _status(jobs, GOOD_IF_FORCED if force else GOOD_FOR, time.time())
        if found is not None:
            return found
        await asked.queue(_order(asked, CHECK, "checkupdates", install=False))
    status = {"status": "checkingforupdates", "details": f"job {CHECK} asks for updates"}
    return {**status, **_last_check(jobs)}


async def _start(asked: Asked) -> dict[str, Any]:
    """Raises: BadRequest, Conflict."""
    target = asked.args.optional("target")
    if target not in (None, "", "pkgupdate"):
        raise BadRequest(
            f"args.target is {quoted(target)}; allowed: pkgupdate. Another release is not"
            " for a job: freebsd-update upgrade asks questions"
        )
    async with asked.turn:
        active = [job for job in await asked.jobs() if job.state != "finished"]
        if active:
            raise Conflict(f"the job {active[0].id} is at it; wait for its end, or kill it")
        name = new_uuid()
        order = _order(asked, f"{RUN}{name}", "startupdate", install=True)
        await asked.queue(order)
    command = order.commands[0].text
    return {"command": command, "comment": "Task Queued", "queueid": name}


async def _stop(asked: Asked) -> dict[str, Any]:
    """Kill the update that runs."""
    active = [j for j in await asked.jobs("startupdate") if j.state != "finished"]
    if active and await asked.kill(active[0].id):
        return {"result": "success"}
    return {"result": "error: no update is running"}


async def _apply(asked: Asked) -> dict[str, Any]:
    """Reboot, if that is meant. Raises: BadRequest."""
    rebooting = command(asked.settings.shutdown, "-r", "now")
    if asked.args.optional("confirm") != "reboot":
        raise BadRequest(
            f"nothing is done yet: this would run `{rebooting.text}`, which reboots the machine"
            ' at once to complete updates; ask again with "confirm": "reboot"'
        )
    origin = Origin(system=NAME, fields={"action": "applyupdate"}, log_field="update_log")
    id = f"{APPLY}{new_uuid()}"
    await asked.queue(Order(id=id, commands=(rebooting,), origin=origin))
    return {"result": "rebooting to complete updates"}


async def _branches(asked: Asked) -> dict[str, Any]:
    """Raises: NotFound."""
    raise NotFound(
        "listbranches: neither freebsd-update nor pkg tells which releases there are;"
        " see https://www.freebsd.org/releases/"
    )


async def _settings(asked: Asked) -> dict[str, str]:
    """Raises: NotFound, ToolFailed."""
    return update_conf.settings(await _conf(asked))


async def _change(asked: Asked) -> dict[str, str]:
    """Raises: NotFound, BadRequest, ToolFailed."""
    wanted = {key: asked.args.text(key) for key in asked.args.values if key != "action"}
    for key in wanted:
        if key in update_conf.WITHOUT:
            raise NotFound(f"{key}: {update_conf.WITHOUT[key]}")
        if key not in update_conf.COUNTERPARTS:
            known = ", ".join(update_conf.COUNTERPARTS)
            raise BadRequest(f"args.{quoted(key)} is no setting; known are {known}")
    async with asked.turn:
        before = await _conf(asked)
        try:
            after = update_conf.changed(before, wanted)
        except ValueError as error:
            raise BadRequest(f"args.{error}") from error
        if after == before:
            return {"result": "no changes"}
        changes = ", ".join(f"{key} = {value}" for key, value in wanted.items())
        await asked.note(f"change {asked.settings.update_conf}: {changes}")
        path = Path(asked.settings.update_conf)
        try:
            await in_time(partial(update_conf.replace_file, path, after), str(path))
        except OSError as error:
            return {"result": "error", "detail": reason(error)}
    return {"result": "success"}


async def _list_logs(asked: Asked) -> dict[str, Any]:
    """By job: when it ran, in seconds since 1970."""
    return {
        job.id: {
            "name": str(job.fields.get("action", "")),
            "started": str((job.started or job.created) // 1000),
            "finished": "" if job.finished is None else str(job.finished // 1000),
        }
        for job in reversed(await asked.jobs())
    }


async def _read_logs(asked: Asked) -> dict[str, str]:
    """Raises: BadRequest, NotFound."""
    names = list(dict.fromkeys(asked.args.texts("logs")))
    if not names:
        raise BadRequest("args.logs is missing; listlogs names the logs")
    # Of several jobs of one id the newest.
    jobs = {job.id: job for job in reversed(await asked.jobs())}
    for name in names:
        if name not in jobs:
            raise NotFound(f"there is no log {quoted(name)}; listlogs names them")
    return {name: await asked.output(jobs[name], LOGS // len(names)) for name in names}


async def _conf(asked: Asked) -> str:
    """The settings' text. Raises: NotFound, ToolFailed."""
    if _is_packaged(asked):
        raise NotFound("a system of packages has no settings of updates: see pkg.conf(5)")
    path = Path(asked.settings.update_conf)
    try:
        data = await in_time(path.read_bytes, str(path))
    except OSError as error:
        raise ToolFailed(f"{path} can't be read: {reason(error)}") from error
    # Not as text: a carriage return is to stay what it is.
    return data.decode("utf-8", "surrogateescape")


def _status(jobs: list[JobRow], good_for: float, now: float) -> dict[str, Any] | None:
    """What these jobs, newest first, tell of updates. None: too little, or too long ago."""
    for job in jobs:
        if job.state != "finished" and job.id != CHECK:
            details = f"job {job.id} is {job.state}"
            return {"status": "updaterunning", "details": details, **_last_check(jobs)}
    if any(job.state != "finished" for job in jobs):
        details = f"job {CHECK} asks for updates"
        return {"status": "checkingforupdates", "details": details, **_last_check(jobs)}
    asking = [job for job in jobs if job.fields.get("action") != "applyupdate"]
    last = next((job for job in asking if job.reported.get("status") in _STATUSES), None)
    if last is None:
        return None
    age = now - (last.finished or 0) / 1000
    status = _STATUSES[last.reported["status"]]
    if status == "rebootrequired":
        # Until then, whatever is asked meanwhile, there is nothing else to be known.
        is_good = age < boot_clock()
    else:
        # One that failed since then says that it is not known any more.
        is_good = last is asking[0] and 0 <= age < good_for
    if not is_good:
        return None
    return {"status": status, **_details(last, status), **_last_check(jobs)}


def _details(job: JobRow, status: str) -> dict[str, Any]:
    if status != "updatesavailable":
        return {"details": f"as of job {job.id}"}
    report = job.reported
    release = str(report.get("release", "updates"))
    counts = cast("dict[str, object]", report.get("files") or {})
    words = {word.replace("_", " "): count for word, count in counts.items() if count}
    what = "files " + ", ".join(f"{word}: {n}" for word, n in words.items()) if words else ""
    patch = {"name": release, "tag": release, "details": what, "date": "", "size": ""}
    kind = "packageupdate" if job.fields.get("base") == "packages" else "patch1"
    shown = {"name": "packages of the system"} if kind == "packageupdate" else patch
    return {"details": f"{release}: {what}" if what else release, kind: shown}


def _last_check(jobs: list[JobRow]) -> dict[str, str]:
    """When it was last known whether there are updates."""
    for job in jobs:
        if job.finished is not None and job.reported.get("status") in _STATUSES:
            return {"last_check": rfc3339(job.finished)}
    return {}


CLASS: Final = JobClass(
    name=NAME,
    needs="freebsd-update, or a system of packages",
    find=_find,
    reporter=_report,
    actions={
        "checkupdates": Action(_check),
        "startupdate": Action(_start),
        "stopupdate": Action(_stop),
        "applyupdate": Action(_apply),
        "listbranches": Action(_branches, reading=True),
        "listsettings": Action(_settings, reading=True),
        "changesettings": Action(_change),
        "listlogs": Action(_list_logs, reading=True),
        "readlogs": Action(_read_logs, reading=True),
    },
)
