"""A copy of the state, and the way back. No client, no request."""
