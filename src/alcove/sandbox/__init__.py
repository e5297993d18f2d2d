"""Confined processes: what a run may touch, held by the kernel, and proven by trying.

Two kinds of module live here. `spawning`, `supervisor`, `launcher`, `namespaces`, `bubblewrap`, `landlock`, `seccomp`,
`kernel`, `processes`, `system`, `outlet`, `handover`, `report`, `bare`, `plan` and `attempts` run in the warm spawner
and in its children: standard library only, few imports, because every confined start forks that process. `policy`,
`vector`, `spawner`, `berths`, `probe` and `service` run in the server; so do, to hold runs to their limits, `limits`,
`hierarchies`, `cgroups`, `taken` and `watch`, and for runs with a list of hosts `proxy`, of `relay`, `resolving`,
`heads` (what a run says) and `destinations` (where it may go).
Nothing is imported here, so that the spawner stays small: `from alcove.sandbox.service import Sandbox`.
"""

from __future__ import annotations
