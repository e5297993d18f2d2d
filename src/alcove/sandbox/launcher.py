"""The steps from a process of ours to the program of a run.

Runs in a child of the warm spawner: standard library only. Where a program cannot see its supervisor, that takes them
itself, and the last one starts the program below it, as confined as it is; elsewhere a fork of it takes them, and the
last one makes that the program. The order is strict and every step has a name, which is noted in the report before the
step is taken: whatever happens, the spawner knows how far it came. A step that fails ends the process; nothing but
the last step can start the program. The first steps are taken ahead, before there is a run to start.
"""

from __future__ import annotations

import errno
import os
import resource

from alcove.sandbox import bubblewrap, kernel, landlock, seccomp, system
from alcove.sandbox.bare import signal, socket
from alcove.sandbox.handover import GIVEN, HIDDEN, keep_only, read_plan, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from alcove.sandbox.plan import Errand, Kind, Plan
    from alcove.sandbox.report import Report

_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, and then by whatever it starts

# Compiled once, in the spawner. By (sockets, shared, nest), see `seccomp.build`.
FILTERS: dict[tuple[bool, bool, bool], seccomp.Program] = {}


def launch(kind: Kind, channel: socket.socket, report: Report, joins: list[int]) -> NoReturn:
    """Become the program of a plan, confined, or report which step failed and end. Called right after a fork.

    Args:
        kind: What kind of plan it will be.
        channel: From which the plan and the program's standard descriptors come, as soon as there is a run.
        report: Told of each step before it is taken, and what failed; its pipe ends when the program starts.
        joins: By which this process gets into the control group of the run.
    """
    try:
        # Above all not the supervisor's end of the channel: it ends with the supervisor, and then so does this.
        keep_only(0, 1, 2, channel.fileno(), report.pipe, *joins)
        start = Start(kind, report, joins)
        start.get_ready()
        if descriptors := receive(channel, GIVEN):
            start.take(descriptors)
            start.go(read_plan(descriptors[0]))
    except BaseException as error:  # noqa: BLE001 - whatever it was, it is reported and the process ends
        report.fail(error)
    finally:
        os._exit(127)  # never back into the code of the process that this one was forked from


def compile_filters() -> None:
    """Compile every filter that a plan may ask for; a machine without one is found out by the step `filter`."""
    if kernel.MACHINE in kernel.ARCHITECTURES:
        for key in ((True, False, False), (True, False, True), (True, True, False), (False, True, False)):
            FILTERS[key] = seccomp.Program(seccomp.build(sockets=key[0], shared=key[1], nest=key[2]))


class Start:
    """One start: its kind, and what its steps hand on to later ones. Each method that `AHEAD` or `STEPS` has is a step.

    Args:
        kind: What kind of plan it will be.
        report: Told of each step before it is taken.
        joins: By which this process gets into the control group of the run.
        status: Where bubblewrap says what becomes of it.

    Attributes:
        kept: Descriptors that whoever starts the program needs after it.
        program: Of the child that became the program; 0 in a process that becomes it itself.
    """

    def __init__(self, kind: Kind, report: Report, joins: list[int], status: int | None = None) -> None:
        self.view = kind["rung"] == "userns"
        self.wrapped = kind["rung"] == "bwrap"  # bubblewrap does then what the steps for `confined` do
        self.confined = kind["rung"] in {"userns", "landlock"}
        self.hidden = kind["rung"] in HIDDEN  # then this is the supervisor itself
        self.nest = kind["nest"]
        self.host = kind["network"] == "host"
        self.proxied = kind["network"] == "proxy"  # then there is a network of its own on every rung
        self.report = report
        self.joins = joins
        self.status = status
        self.standard: list[int] = []
        self.gate: int | None = None  # from which bubblewrap reads before it starts the program
        self.kept: list[int] = []
        self.domain: int | None = None
        self.command: tuple[str, list[str], dict[str, str]] | None = None
        self.program = 0

    def get_ready(self) -> None:
        """Take the steps that need no plan."""
        for name, prepare in AHEAD:
            self.report.step(name)
            prepare(self)

    def take(self, descriptors: list[int]) -> None:
        """Take what comes with a run: its plan, and the standard descriptors."""
        self.standard = descriptors[1:GIVEN]
        if not self.hidden:
            for number, descriptor in enumerate(self.standard):
                os.dup2(descriptor, number)

    def go(self, plan: Plan) -> None:
        """Take the steps that are left, and by the last one become the program or start it."""
        for name, step in STEPS:
            self.report.step(name)
            step(self, plan)

    def session(self) -> None:
        """Leave any terminal and the group of whoever forked this: a pid namespace does not stop kill(0)."""
        os.setsid()
        self.guard()  # while it waits; once more after the identity, whose change clears it

    def make_domain(self) -> None:
        """Make the Landlock domain, while every path can still be opened. It is entered further below."""
        # A view confines files by itself, so there Landlock is the second wall, and may be missing.
        # In a domain nobody can mount, so a sandbox inside goes without.
        if not self.confined or (self.view and (self.nest or not landlock.abi())):
            return
        self.domain = landlock.ruleset(tcp=self.view or self.host or self.proxied)
        if self.view:
            landlock.allow(self.domain, ("/",), landlock.READ)
            landlock.allow(self.domain, ("/dev",), landlock.DEVICE)
            landlock.allow(self.domain, ("/dev/shm", "/tmp"), landlock.WRITE)
        else:
            landlock.allow(self.domain, system.readable(view=False, network=True), landlock.READ, present=False)
            landlock.allow(self.domain, system.MACHINE, landlock.READ, present=False)
            landlock.allow(self.domain, system.DEVICES, landlock.DEVICE)

    def empty_bounding_set(self) -> None:
        """Takes a capability itself, so it comes before the identity; an ordinary user has none to lose."""
        if self.view or (self.confined and os.geteuid() == 0):
            kernel.drop_bounding_set()

    def refuse_privileges(self) -> None:
        """Let no program give more rights than this process has."""
        if self.confined:
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)

    def join_group(self) -> None:
        """Join the run's control group, with all that is started from here."""
        for one in self.joins:
            os.write(one, b"0")
            os.close(one)

    def enter_folder(self, plan: Plan) -> None:
        """Change to the working directory."""
        os.chdir(plan["cwd"])

    def set_limits(self, plan: Plan) -> None:
        """Set resource limits; one above the server's own is cut to that."""
        for name, most in plan["limits"].items():
            number: int = getattr(resource, f"RLIMIT_{name}")
            _, hard = resource.getrlimit(number)
            bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(number, (bound, bound))

    def grant(self, plan: Plan) -> None:
        """Allow in the domain what the run was granted."""
        if self.domain is None:
            return
        landlock.allow(self.domain, plan["read"], landlock.READ)
        landlock.allow(self.domain, plan["write"], landlock.WRITE)
        if not self.view:
            # Of the machine's /proc/PID its own, which it keeps as the program; its children do not get theirs.
            landlock.allow(self.domain, ("/proc/self",), landlock.READ)
            if plan["uid"] is not None:  # else the terminals of the user who runs the server would be open too
                landlock.allow(self.domain, system.TERMINALS, landlock.DEVICE, present=False)

    def close_descriptors(self, _: Plan) -> None:
        """Keep the standard ones; the others are closed on the way to the program."""
        more = (one for one in (self.domain, self.gate, self.status) if one is not None)
        keep_only(0, 1, 2, self.report.pipe, *(self.standard if self.hidden else ()), *self.kept, *more)

    def take_identity(self, plan: Plan) -> None:
        """Become the leased uid, with no group but its own."""
        uid = plan["uid"]
        if os.geteuid() == 0 and (uid is not None or self.confined or self.wrapped):
            os.setgroups([])
        if uid is not None:
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)

    def drop_capabilities(self, _: Plan) -> None:
        """Give up every capability that is left."""
        if self.confined or self.wrapped:
            kernel.set_capabilities()

    def guard(self, _: Plan | None = None) -> None:
        """End with the process above, and give nobody a look inside."""
        ask = self.hidden and not self.view  # such a supervisor ends its tree first; for a view the kernel sees to that
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGTERM if ask else signal.SIGKILL)
        if self.hidden:
            kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def enter_domain(self, _: Plan) -> None:
        """Enter the Landlock domain for good."""
        if self.domain is not None:
            landlock.restrict(self.domain)

    def filter_calls(self, _: Plan) -> None:
        """Put the system-call filter on for good: none of the steps that are left needs what it denies."""
        if self.confined:
            seccomp.install(self._filter())

    def wrap(self, plan: Plan) -> None:
        """Put bubblewrap before the program."""
        if self.wrapped:
            assert self.status is not None
            path, argv = bubblewrap.command(plan, self._filter().code, self.status, self.gate)
            self.command = path, argv, {}

    def execute(self, plan: Plan) -> None:
        """Become the program, or start it."""
        if self.command is not None:
            bubblewrap.find(plan)
            self._execute(*self.command)
        elif plan["errand"] is not None:
            self._run(plan["errand"])
        else:
            self._look_for(plan)

    def _look_for(self, plan: Plan) -> None:
        program, argv, env = plan["argv"][0], plan["argv"], plan["env"]
        if "/" in program:
            return self._execute(program, argv, env)
        failed = OSError(errno.ENOENT, os.strerror(errno.ENOENT), program)
        for folder in env.get("PATH", "/usr/local/bin:/usr/bin:/bin").split(":"):
            try:
                return self._execute(f"{folder or '.'}/{program}", argv, env)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError as error:
                failed = error
        raise failed

    def _execute(self, path: str, argv: list[str], env: dict[str, str]) -> None:
        if not self.hidden:
            self._let_go()
            os.execve(path, argv, env)
        # Not a fork: the kernel lends the child this process's memory until it has become the program.
        self.program = os.posix_spawn(
            path,
            argv,
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, one, number) for number, one in enumerate(self.standard)],
            setsid=True,
            setsigmask=(),
            setsigdef=_IGNORED,
        )

    def _run(self, errand: Errand) -> None:
        if self.hidden:
            self.program = os.fork()
            if self.program:
                return
            os.setsid()
            for number, one in enumerate(self.standard):
                os.dup2(one, number)
        self._let_go()
        keep_only(0, 1, 2)
        from alcove.sandbox import attempts  # the spawner has it already, when it starts errands

        attempts.run(errand)

    def _let_go(self) -> None:
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _filter(self) -> seccomp.Program:
        view = self.view or self.wrapped
        program = FILTERS.get((self.host or self.proxied or view, not view, self.nest and view))
        if program is None:
            raise OSError(errno.ENOSYS, f"no system-call filter for {kernel.MACHINE}")
        return program


AHEAD: list[tuple[str, Callable[[Start], None]]] = [
    ("session", Start.session),
    ("domain", Start.make_domain),
    ("bounding", Start.empty_bounding_set),
    ("privileges", Start.refuse_privileges),
    ("group", Start.join_group),
]

STEPS: list[tuple[str, Callable[[Start, Plan], None]]] = [
    ("folder", Start.enter_folder),
    ("limits", Start.set_limits),
    ("grants", Start.grant),
    ("descriptors", Start.close_descriptors),
    ("identity", Start.take_identity),
    ("capabilities", Start.drop_capabilities),
    ("guard", Start.guard),
    ("landlock", Start.enter_domain),
    ("filter", Start.filter_calls),
    ("bubblewrap", Start.wrap),
    ("program", Start.execute),
]
