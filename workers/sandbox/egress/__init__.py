"""The one way out of a sandbox: a Unix socket to a proxy of ours, with a policy.

``policy`` says which hosts and which addresses, ``proxy`` speaks HTTP and keeps to it, ``doors`` makes
the sockets. A sandbox has no network interface in any mode; what holds no such socket reaches nothing.
"""

from __future__ import annotations
