"""The resident supervisor of a sandbox: it runs commands and moves files for the worker.

It speaks session protocol 1, whose words are in README.md beside this file: one JSON object a line,
from the worker on standard input, to the worker on standard output.

It lives inside the sandbox, as the same user as the code it runs. So it has no authority, and the
worker believes nothing it says without a check. What it gives is speed and order: a command costs
a few milliseconds here and fifty through the engine, output is cut before it can drown a worker,
and no process outlives its command.

Standard library only, one thread, nothing imported that running a command does not need. The parts
are modules of their own so that Python keeps them compiled: a script it would compile every time.
The local driver runs this very file.
"""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from supervisor.loop import Supervisor
from supervisor.wire import Wire

if __name__ == "__main__":
    Supervisor(Wire(0, 1), os.getcwd()).serve()
