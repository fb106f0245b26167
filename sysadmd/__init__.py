"""The base of sysadmd: what every room stands on. Knows no source, no job, no listener."""

__version__ = "0.1.0"
