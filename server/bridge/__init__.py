"""The bridge: servers and clients meet here that can't reach each other. No job, no event."""
