"""A WebSocket of Qt's own, as the original client has it: lines of JSON in, and out.

In: a text to be sent, as a JSON string. Out: ["connected"], ["text", TEXT], ["closed"].
Run by the system's Python, which has PyQt5 where that is installed; who checks types has not.
"""

# mypy: disable-error-code="import-not-found"
# pyright: basic, reportMissingImports=false

import json
import os
import sys

from PyQt5.QtCore import QCoreApplication, QSocketNotifier, QTimer, QUrl
from PyQt5.QtWebSockets import QWebSocket, QWebSocketProtocol


def say(*what: str) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(url: str) -> None:
    app = QCoreApplication([])
    socket = QWebSocket("sysadm-client", QWebSocketProtocol.VersionLatest, None)
    rest = bytearray()

    def told() -> None:
        data = os.read(0, 65536)
        rest.extend(data)
        *lines, left = bytes(rest).split(b"\n")
        rest[:] = left
        for line in lines:
            socket.sendTextMessage(json.loads(line))
        if not data:
            stdin.setEnabled(False)
            socket.close()
            QTimer.singleShot(1000, app.quit)

    def closed() -> None:
        say("closed")
        app.quit()

    stdin = QSocketNotifier(0, QSocketNotifier.Read)
    stdin.activated.connect(told)
    socket.connected.connect(lambda: say("connected"))
    socket.textMessageReceived.connect(lambda text: say("text", text))
    socket.disconnected.connect(closed)
    # As the original does: any certificate is taken.
    QTimer.singleShot(0, socket.ignoreSslErrors)
    socket.open(QUrl(url))
    app.exec_()
    # Its end must find nothing of ours.
    socket.disconnected.disconnect(closed)


main(sys.argv[1])
