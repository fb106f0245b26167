"""Events to everybody who subscribed, live or from the journal, as frames. No socket."""
