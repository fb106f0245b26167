"""RSA keys as the original client has them, made and used by openssl(1)."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path


class RsaKey:
    """A pair in a file."""

    def __init__(self, folder: Path, bits: int = 2048) -> None:
        self._file = folder / f"rsa-{len(list(folder.glob('rsa-*')))}.pem"
        self._openssl("genrsa", "-out", str(self._file), str(bits))

    @property
    def public(self) -> bytes:
        """PEM, as Qt writes it."""
        return self._openssl("pkey", "-in", str(self._file), "-pubout")

    @property
    def text(self) -> str:
        """As requests have it."""
        return base64.b64encode(self.public).decode()

    def sign(self, text: str) -> str:
        """PKCS #1 v1.5 of the text itself, in base64."""
        return base64.b64encode(self.block(text.encode())).decode()

    def block(self, data: bytes) -> bytes:
        """What the private key makes of data, with the original's padding."""
        options = ("-inkey", str(self._file), "-pkeyopt", "rsa_padding_mode:pkcs1")
        return self._openssl("pkeyutl", "-sign", *options, data=data)

    def raw(self, block: bytes) -> bytes:
        """What it makes of a whole block."""
        options = ("-inkey", str(self._file), "-pkeyopt", "rsa_padding_mode:none")
        return self._openssl("pkeyutl", "-decrypt", *options, data=block)

    @staticmethod
    def _openssl(*arguments: str, data: bytes = b"") -> bytes:
        done = subprocess.run(
            ["openssl", *arguments], input=data, check=True, capture_output=True
        )
        return done.stdout
