"""`sysadmctl top`: a live view of a server that fills the terminal.

What is known (`model`, `log_lines`), what keys mean (`pressing`) and what is shown (`screen`)
are pure; `terminal` has the terminal, and `view` ties them to a server.
"""
