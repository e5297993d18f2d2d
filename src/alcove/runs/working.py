"""How the work of an agent is prepared and done: a program in the sandbox, or a function in this process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from alcove import ids, limits
from alcove.agents.base import AgentContext, AgentInfo, Ask, Line, Prompt, nobody
from alcove.agents.catalog import Agent
from alcove.agents.command import CommandAgent
from alcove.agents.function import FunctionAgent
from alcove.agents.redaction import Redactor
from alcove.errors import ConfigurationError
from alcove.messages.service import Messages
from alcove.runs import holder
from alcove.runs.checks import check
from alcove.runs.grants import Grant, for_program
from alcove.runs.model import RunStatus
from alcove.runs.place import RunFolder, environment
from alcove.runs.reconciler import Reconciler
from alcove.runs.steering_queries import Pulled
from alcove.runs.supervisor import Supervisor, Work
from alcove.runs.voice import Voice
from alcove.sandbox.limits import Limits
from alcove.sandbox.policy import Policy
from alcove.sandbox.proxy import Refused
from alcove.sandbox.running import Process
from alcove.sandbox.service import Sandbox
from alcove.workspaces.bound import RunFiles
from alcove.workspaces.model import Listing, Usage
from alcove.workspaces.service import Workspaces

Refusals = Callable[[str, Refused], None]
Door = Callable[[str, str, str, Path], Awaitable[Callable[[], Awaitable[None]]]]
"""Opens a run's socket: given session id, run id, token and path; returns what closes it."""


class Pulling(Protocol):
    """Takes messages for a run."""

    async def __call__(self, run_id: str, *, limit: int) -> Pulled:
        """Take at most `limit`; see `Runs.pull`."""
        ...


class Job(msgspec.Struct, frozen=True):
    """A run that is ready to start: what it may touch, and what it will do."""

    grant: Grant
    work: Work


class Workshop:
    """Prepares runs.

    Args:
        workspaces: Where programs work; None for a hub without: then only functions can run.
        messages: Gives functions their history.
        sandbox: Opens the sandbox; called when the first program is run.
        home: `ALCOVE_HOME`.
        hide: Paths that no run is ever granted.
        read: Paths that every run may read.
        environ: The server's environment.
        reconciler: Ends what a run has left that was lost.
        bounds: What a run may take, where its agent's table says nothing else.
    """

    def __init__(
        self,
        *,
        workspaces: Workspaces | None,
        messages: Messages,
        sandbox: Callable[[], Awaitable[Sandbox]],
        home: Path,
        hide: tuple[str, ...],
        read: tuple[str, ...],
        environ: Mapping[str, str],
        reconciler: Reconciler,
        bounds: Limits | None = None,
    ) -> None:
        self.reconciler = reconciler
        self._bounds = bounds or Limits()
        self.door: Door | None = None
        self.on_refused: Refusals = _tell_nobody
        self.asking: Callable[[str], Ask] = _ask_nobody
        self.pulling: Pulling = _pull_nothing
        self._workspaces = workspaces
        self._messages = messages
        self._open_sandbox = sandbox
        self._opening = asyncio.Lock()
        self._sandbox: Sandbox | None = None
        self._home = home
        self._hide = hide
        self._read = read
        self._environ = environ

    async def sandbox(self) -> Sandbox:
        """Return the sandbox, opened and probed."""
        async with self._opening:
            if self._sandbox is None:
                self._sandbox = await self._open_sandbox()
        return self._sandbox

    async def close(self) -> None:
        """End every process that is left."""
        if self._sandbox is not None:
            await self._sandbox.close()

    async def prepare(
        self, session_id: str, run_id: str, agent: Agent, prompt: Prompt, timeout_s: float, grant: Grant
    ) -> Job:
        """Return a run that is ready to start; whatever can be refused is refused here, before a row is written."""
        if isinstance(agent, FunctionAgent):
            if self._workspaces:
                await self._workspaces.ensure(session_id)
            look = await _Look.at(self._workspaces, session_id)
            grant = msgspec.structs.replace(grant, timeout_s=timeout_s)
            return self._function(session_id, run_id, agent, prompt, look, grant)
        if self._workspaces is None:
            raise ConfigurationError(
                f"agent {agent.name!r} is a program, and this hub has no workspaces",
                field="workspaces",
                remedy="open it with workspaces=",
            )
        sandbox = await self.sandbox()
        invocation = agent.invocation(prompt)
        sandbox.require(nest=invocation.nest, network=grant.network)
        uid = await self._workspaces.ensure(session_id, guarded=sandbox.guarded)
        look = await _Look.at(self._workspaces, session_id)
        folder = RunFolder(self._home, run_id)
        home = self._workspaces.home(session_id)
        own = (str(self._workspaces.path(session_id)), str(home), str(folder.path))
        readable = (*self._read, *invocation.needs, *grant.read)
        env = environment(
            self._environ,
            {**invocation.env, **invocation.secrets},
            session_id=session_id,
            run_id=run_id,
            home=home,
            folder=folder,
            readable=readable,
            guarded=self._workspaces.path(session_id) if sandbox.guarded and uid is not None else None,
        )
        policy = Policy(
            argv=invocation.argv,
            env=env,
            cwd=own[0],
            write=own,
            share=grant.write,
            read=readable,
            network=grant.network,
            nest=invocation.nest,
            uid=uid,
            hide=self._hide,
            bounds=self._bounds.changed(agent.limits, where=f"agents.{agent.name}.limits"),
            taken_bytes=(await self._workspaces.usage(session_id)).size_bytes,
        )
        policy.check_nest(sandbox.rung)
        policy.check()
        redactor = Redactor({value: name for name, value in invocation.secrets.items()})
        program = _Program(
            sandbox, session_id, agent, invocation.stdin, policy, folder, self.door, self._workspaces, redactor
        )
        program.on_refused = self.on_refused
        await asyncio.to_thread(folder.make, owner=uid)
        grant = for_program(grant, invocation, own, timeout_s)
        return self._job(grant, program.run, look, program.clean, redactor.text)

    async def check(self, agent: Agent) -> AgentInfo:
        """Return an agent, available only when its program was found and its own check succeeded."""
        sandbox = await self.sandbox()
        return await check(agent, sandbox, home=self._home, environ=self._environ, hide=self._hide, read=self._read)

    def _job(
        self,
        grant: Grant,
        work: Callable[[Supervisor], Awaitable[tuple[str, int | None]]],
        look: _Look,
        clean: Callable[[], Awaitable[None]],
        redact: Callable[[str], str] = str,
    ) -> Job:
        async def run(supervisor: Supervisor) -> tuple[str, int | None]:
            if supervisor.started.lost:
                await self.reconciler.clear(supervisor.started.lost)
            return await work(supervisor)

        timeout_s = grant.timeout_s
        return Job(grant, Work(run=run, compare=look.compare, clean=clean, timeout_s=timeout_s, redact=redact))

    def _function(
        self, session_id: str, run_id: str, agent: FunctionAgent, prompt: Prompt, look: _Look, grant: Grant
    ) -> Job:
        async def run(supervisor: Supervisor) -> tuple[str, int | None]:
            await supervisor.launched(tree="", rung="in-process", guarantees="{}")
            voice = Voice(supervisor.journal)

            async def history(rounds: int) -> list[Line]:
                window = await self._messages.window(session_id, rounds=rounds, before=supervisor.started.seq)
                return [Line(message.role, message.text) for message in window]

            async def pull(limit: int = limits.STEERING_MESSAGES) -> list[str]:
                return [message.text for message in (await self.pulling(run_id, limit=limit)).messages]

            context = AgentContext(
                session_id=session_id,
                run_id=run_id,
                message=prompt.message,
                workspace=str(self._workspaces.path(session_id)) if self._workspaces else "",
                history=history,
                emit=voice.emit,
                drain=voice.drain,
                files=RunFiles(self._workspaces, session_id, supervisor.fence) if self._workspaces else None,
                ask=self.asking(run_id),
                pull=pull,
            )
            answering = asyncio.create_task(agent.answer(context))
            await asyncio.wait({answering, supervisor.stopped}, return_when=asyncio.FIRST_COMPLETED)
            if answering.done():
                return answering.result(), None
            answering.cancel()
            # One that will not be cancelled is left alone: it must not hold the session for ever.
            await asyncio.wait({answering}, timeout=limits.KILL_GRACE_S)
            return "", None

        async def clean() -> None:
            return None

        return self._job(grant, run, look, clean)


def broken(grant: Grant, error: Exception) -> Job:
    """Return a run that was taken in and cannot be prepared any more: it fails with that error."""

    async def run(supervisor: Supervisor) -> tuple[str, int | None]:
        del supervisor
        raise error

    async def compare() -> tuple[None, None]:
        return None, None

    async def clean() -> None:
        return None

    return Job(grant, Work(run=run, compare=compare, clean=clean, timeout_s=limits.RUN_TIMEOUT_S))


def _tell_nobody(run_id: str, refused: Refused) -> None:
    del run_id, refused


async def _pull_nothing(run_id: str, *, limit: int) -> Pulled:
    del run_id, limit
    return Pulled([], 0)


def _ask_nobody(run_id: str) -> Ask:
    del run_id
    return nobody


class _Look:
    """What was in a workspace before a run, to tell afterwards what changed."""

    def __init__(self, workspaces: Workspaces | None, session_id: str) -> None:
        self._workspaces = workspaces
        self._session_id = session_id
        self._before: dict[str, tuple[int, int]] | None = None

    @classmethod
    async def at(cls, workspaces: Workspaces | None, session_id: str) -> _Look:
        look = cls(workspaces, session_id)
        if workspaces:
            look._before = _marks(await workspaces.list_files(session_id))
        return look

    async def compare(self) -> tuple[tuple[str, ...] | None, Usage | None]:
        """Return which files changed, and what the workspace takes now."""
        if self._workspaces is None:
            return None, None
        usage = await self._workspaces.measure(self._session_id)
        after = _marks(await self._workspaces.list_files(self._session_id))
        if self._before is None or after is None:
            return None, usage
        before = self._before
        changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
        return tuple(path.encode(errors="replace").decode() for path in changed[: limits.CHANGED_FILES]), usage


class _Program:
    """One program on one message."""

    def __init__(
        self,
        sandbox: Sandbox,
        session_id: str,
        agent: CommandAgent,
        stdin: bytes,
        policy: Policy,
        folder: RunFolder,
        door: Door | None,
        workspaces: Workspaces,
        redactor: Redactor,
    ) -> None:
        self.on_refused: Refusals = _tell_nobody
        self._workspaces = workspaces
        self._redactor = redactor
        self._sandbox = sandbox
        self._session_id = session_id
        self._agent = agent
        self._stdin = stdin
        self._policy = policy
        self._folder = folder
        self._door = door
        self._transcript = agent.transcript()

    async def run(self, supervisor: Supervisor) -> tuple[str, int | None]:
        """Start the program, carry its output, end it when the run is stopped; return its answer and exit code."""
        close_door = await self._open_door(supervisor.started.run_id)
        try:
            if self._sandbox.guarded:
                # Once more, under the lease: a file that came from outside since may have taken the guard away.
                await self._workspaces.settle(self._session_id, guarded=True)
            process = await self._sandbox.spawn(
                self._policy, stdin=self._stdin, refused=partial(self.on_refused, supervisor.started.run_id)
            )
            killer = asyncio.create_task(_kill_when_stopped(process, supervisor))
            try:
                await supervisor.launched(
                    tree=holder.named(process.pid, process.start_time),
                    rung=self._sandbox.rung,
                    guarantees=msgspec.json.encode(self._sandbox.holds(nest=self._policy.nest)).decode(),
                )
                async for stream, chunk in self._redactor.stream(process.output()):
                    self._transcript.feed(stream, chunk)
                    await supervisor.journal.add(stream, chunk)
                ended = await process.wait()
            except BaseException:
                await process.kill()
                raise
            finally:
                killer.cancel()
        finally:
            if close_door:
                await close_door()
        if process.guard and process.guard.excess:
            supervisor.fail(process.guard.excess.error(self._agent.name))
        code = ended.code if ended.signal is None else 128 + ended.signal
        answer = await asyncio.to_thread(self._agent.answer, self._transcript, code)
        return answer, code

    async def clean(self) -> None:
        """Remove the run's own folder, and close to everybody else what it may have opened of the session's."""
        await asyncio.to_thread(self._folder.remove)
        await self._workspaces.settle(self._session_id, guarded=self._sandbox.guarded)

    async def _open_door(self, run_id: str) -> Callable[[], Awaitable[None]] | None:
        if self._door is None:
            return None
        token = ids.new_secret()
        close = await self._door(self._session_id, run_id, token, self._folder.socket)
        if self._policy.uid is not None:
            os.chown(self._folder.socket, self._policy.uid, self._policy.uid)
        env = {**self._policy.env, "ALCOVE_RUN_TOKEN": token, "ALCOVE_SOCKET": str(self._folder.socket)}
        self._policy = msgspec.structs.replace(self._policy, env=env)
        return close


async def _kill_when_stopped(process: Process, supervisor: Supervisor) -> None:
    status = await asyncio.shield(supervisor.stopped)
    await process.kill(grace_s=0 if status == RunStatus.LOST else limits.KILL_GRACE_S)


def _marks(listing: Listing) -> dict[str, tuple[int, int]] | None:
    """Return size and time of each file, or None when there are too many to compare."""
    if listing.truncated or len(listing.files) > limits.COMPARED_FILES:
        return None
    return {file.path: (file.size_bytes, file.modified_at) for file in listing.files}
