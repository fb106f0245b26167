"""The bridge: where servers and clients meet that can not reach each other. No job, no event."""
