"""The outside: protocol, sockets, sessions, subscriptions, the composition of the daemon."""
