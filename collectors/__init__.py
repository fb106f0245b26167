"""Watchers of one source each: look, decide, say. They know no client, no job, no wire."""
