"""Measurements of the running daemon, each beside the limit or the rival of the same run."""
