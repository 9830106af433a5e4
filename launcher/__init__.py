"""Runs AOS on one machine: what `make up`, `make demo` and `make stop` do.

It knows the rest of the project by command lines, environment variables and HTTP, and imports none
of it: a broken application can still be started, watched, stopped and explained.
"""

from __future__ import annotations
