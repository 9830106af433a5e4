#!/usr/bin/env python
"""Django's command line."""

from __future__ import annotations

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault(  # noqa: TID251  # before there are settings
        "DJANGO_SETTINGS_MODULE", "aos_project.settings.dev"
    )
    execute_from_command_line(sys.argv)
