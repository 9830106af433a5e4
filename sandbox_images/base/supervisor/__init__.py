"""The parts of the supervisor; see ``sbx.py`` beside this folder."""

from __future__ import annotations
