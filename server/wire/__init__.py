"""Sockets, TLS, HTTP, WebSocket frames, requests as values, and their limits. No session."""
