"""The rotated files beside a log, as its folder lists them."""

from __future__ import annotations

import logging
from typing import Final

from collectors import log_generations
from collectors.log_folder import LogFolder
from collectors.log_generations import Generation

log = logging.getLogger(__name__)

# Of more rotated files only the newest are looked at; and fewer than are remembered.
CONSIDERED: Final = 400


class Listing:
    """Of the log of one name."""

    def __init__(self, name: str) -> None:
        self._name = name
        # Did the folder say what is in it when it was last asked?
        self.complete = True

    def rotated(self, folder: LogFolder, log_name: str) -> list[Generation]:
        """All rotated files, the newest last, without the log.

        folder, log_name: where the log is, which may be a link. Raises: OSError.
        """
        return self._listed(folder, log_name, every=False)

    def similar(self, folder: LogFolder, log_name: str) -> list[Generation]:
        """And what else is called like the log. Raises: OSError."""
        return self._listed(folder, log_name, every=True)

    def is_rotated(self, generation: Generation, log_name: str) -> bool:
        """Is it called as a rotation does?"""
        return log_generations.is_rotated(generation.name, {self._name, log_name})

    def _listed(self, folder: LogFolder, log_name: str, *, every: bool) -> list[Generation]:
        names = {self._name, log_name}

        def wanted(name: str) -> bool:
            if name in names:
                return False
            return log_generations.is_rotated(name, names) or (
                every and any(name.startswith(of) for of in names)
            )

        try:
            infos = folder.files(wanted)
        except PermissionError as error:
            if self.complete:
                log.warning(
                    "%s can't be listed (%s): lines that are in rotated files before they are"
                    " read are not found; let the daemon list it (chmod +r)",
                    folder.path,
                    error.strerror,
                )
            self.complete = False
            return []
        self.complete = True
        found = log_generations.generations(infos)
        found.sort(key=lambda file: file.info.st_mtime_ns)
        return found[-CONSIDERED:]
