"""Which class of requests answers what: the one table of the wire's doors."""

from __future__ import annotations

from dispatcher.runner import Dispatcher
from server.classes.auth import Auth
from server.classes.clients import Clients
from server.classes.dispatcher import DispatcherClass
from server.classes.events import Subscribe, Unsubscribe
from server.classes.identity import AuthClear, AuthToken, Identify, Query
from server.classes.logs import Logs
from server.classes.tokens import Tokens
from server.desk import RequestClass
from server.login.accounts import Accounts
from server.login.audit import Audit
from server.login.guesses import Guesses


def request_classes(
    dispatcher: Dispatcher, accounts: Accounts, audit: Audit, admin_token: str
) -> dict[str, RequestClass]:
    """Every namespace/name that is answered, in lower case."""
    return {
        "rpc/identify": Identify(),
        "rpc/auth": Auth(audit, accounts, Guesses()),
        "rpc/auth_token": AuthToken(admin_token, audit),
        "rpc/auth_clear": AuthClear(),
        "rpc/query": Query(),
        "rpc/dispatcher": DispatcherClass(dispatcher, audit),
        "rpc/logs": Logs(),
        "rpc/clients": Clients(),
        "rpc/tokens": Tokens(audit),
        "events/subscribe": Subscribe(),
        "events/unsubscribe": Unsubscribe(),
    }
