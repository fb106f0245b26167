"""Requests by class, which is namespace and name: which role each needs, and its answer."""
