"""Certificates of clients, and clients that show them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kit.client import Client
from tests.kit.daemon import Daemon


def make_client_certificates(directory: Path, *names: str) -> None:
    """ca.pem, and NAME.pem and NAME.key that it has signed."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=directory)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *curve, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")
    for name in names:
        key, csr = f"{name}.key", f"{name}.csr"
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", csr)
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        openssl("x509", "-req", "-in", csr, *signer, "-out", f"{name}.pem")


def with_certificate(daemon: Daemon, directory: Path, name: str) -> Client:
    """A client that shows a certificate, or none."""
    context = daemon.context
    if name:
        context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
    return Client(daemon.url, context)
