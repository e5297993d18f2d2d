"""What every run may read of the machine: programs, libraries, and of /etc what programs need to start.

Standard library only: read by the server, which refuses to hide anything below these, and by the launcher.
"""

from __future__ import annotations

import os

# What an operator adds is named in `Policy.read`.
SYSTEM = ("/bin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/sbin", "/usr")
# To start, to resolve names, to check certificates; nothing that could hold a secret.
_ETC = """
alpine-release alternatives bash.bashrc debian_version fonts java-11-openjdk java-17-openjdk java-21-openjdk
ld.so.cache localtime lsb-release mime.types nsswitch.conf os-release perl php pki/ca-trust pki/tls/cert.pem
pki/tls/certs profile profile.d protocols python3 redhat-release services ssl/certs ssl/openssl.cnf system-release
terminfo timezone
"""
_NETWORK = ("/etc/hosts", "/etc/resolv.conf")
# Where the machine's own /etc is visible. Git takes a file that it sees and may not read for a fault, and ends; pip
# does so with the files that tell the distribution.
_VISIBLE = ("/etc/gitconfig", "/etc/group", "/etc/passwd", *_NETWORK)

DEVICES = ("/dev/full", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero")
TERMINALS = ("/dev/ptmx", "/dev/pts")
# What the machine's own /proc says about the machine. Not /proc/PID: there, everybody can read everybody's arguments.
_MACHINE = "cgroups cpuinfo devices filesystems loadavg meminfo partitions stat swaps sys uptime version"
MACHINE = tuple(f"/proc/{name}" for name in _MACHINE.split())
NEVER = ("/proc", "/sys", "/dev")


LINKS: dict[str, str] = {}
"""Of what may be read, those that are links into `SYSTEM`, and where they lead: a link costs less than a mount."""


def _look() -> list[str]:
    found: list[str] = []
    for path in (*SYSTEM, *(f"/etc/{name}" for name in _ETC.split()), *_VISIBLE):
        target = os.path.realpath(path)
        if not os.path.exists(target):
            continue
        if os.path.islink(path) and any(f"{target}/".startswith(f"{folder}/") for folder in SYSTEM):
            LINKS[path] = target
        found.append(path)
    return found


_PRESENT = _look()


def readable(*, view: bool, network: bool) -> list[str]:
    """Return the paths that a run may read, of those that were there when this process began.

    Args:
        view: Whether the run has a file system of its own, with accounts and host names of its own.
        network: Whether it needs to find hosts.
    """
    own = {*_VISIBLE} - {*(_NETWORK if network else ())} if view else set[str]()
    return [path for path in _PRESENT if path not in own]
