# Generated from the async classes by `make stubs`; tests/sync/test_stub.py says when it is out of date.
"""The blocking door: the hub for threads without an event loop (Flask, scripts, notebooks)."""

import builtins as _builtins
import contextlib as _contextlib
import datetime as _datetime
import os as _os
import pathlib as _pathlib
import types as _types
import typing as _typing
from collections import abc as _collections_abc

import msgspec as _msgspec

from alcove import clock as _alcove_clock, errors as _alcove_errors, values as _alcove_values
from alcove.agents import catalog as _alcove_agents_catalog
from alcove.archive import model as _alcove_archive_model, service as _alcove_archive_service
from alcove.audit import model as _alcove_audit_model
from alcove.dialogs import model as _alcove_dialogs_model
from alcove.events import model as _alcove_events_model
from alcove.janitor import model as _alcove_janitor_model
from alcove.lifecycle import model as _alcove_lifecycle_model
from alcove.messages import (
    mending as _alcove_messages_mending,
    model as _alcove_messages_model,
    repair as _alcove_messages_repair,
    tokens as _alcove_messages_tokens,
    windows as _alcove_messages_windows,
)
from alcove.objects import model as _alcove_objects_model
from alcove.principals import model as _alcove_principals_model
from alcove.rights import approvals as _alcove_rights_approvals, model as _alcove_rights_model
from alcove.runs import (
    approval_queries as _alcove_runs_approval_queries,
    checking as _alcove_runs_checking,
    deciding as _alcove_runs_deciding,
    granting as _alcove_runs_granting,
    grants as _alcove_runs_grants,
    hosted as _alcove_runs_hosted,
    hosted_queries as _alcove_runs_hosted_queries,
    model as _alcove_runs_model,
    queue_queries as _alcove_runs_queue_queries,
    reconciler as _alcove_runs_reconciler,
    remembering as _alcove_runs_remembering,
    steering_queries as _alcove_runs_steering_queries,
)
from alcove.search import model as _alcove_search_model
from alcove.sessions import heads as _alcove_sessions_heads, model as _alcove_sessions_model
from alcove.settings import model as _alcove_settings_model
from alcove.state import model as _alcove_state_model
from alcove.sync import doors as _alcove_sync_doors
from alcove.workspaces import (
    changing as _alcove_workspaces_changing,
    model as _alcove_workspaces_model,
    queries as _alcove_workspaces_queries,
    streams as _alcove_workspaces_streams,
)

__all__ = ["open"]

class Alcove:
    """An open installation. The services are the truth; everything else is a client of them."""
    @property
    def agents(self) -> _alcove_agents_catalog.Catalog: ...
    @property
    def archive(self) -> Archive: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def dialogs(self) -> Dialogs: ...
    @property
    def events(self) -> Events: ...
    @property
    def installation(self) -> str: ...
    @property
    def janitor(self) -> Janitor: ...
    @property
    def keys(self) -> Keys: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def objects(self) -> Objects: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def search(self) -> Search: ...
    @property
    def sessions(self) -> Lifecycle: ...
    @property
    def settings(self) -> _alcove_settings_model.Settings: ...
    @property
    def state(self) -> State: ...
    @property
    def workspaces(self) -> Workspaces | None: ...
    def probe(self) -> None:
        """Write a row and wait until it is durable: raises the DatabaseError that a real write would get."""

    def require(self, guarantee: str) -> None:
        """Add to the guarantees without which no program runs; before the first one does."""

    def close(self) -> None:
        """Cancel what runs and close the installation. Twice is fine; afterwards everything raises ClosedError."""

    def __enter__(self) -> _typing.Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: _types.TracebackType | None
    ) -> None: ...

class Archive:
    """Takes sessions out and brings them in: in an archive of Alcove's, or as other programs kept them."""
    def export_archive(
        self,
        file: str | _pathlib.Path,
        session_ids: _collections_abc.Sequence[str] | None = None,
        *,
        replace: bool = False,
        tenant: str = "default",
        progress: _alcove_archive_service.Progress = ...,
        by: str = "library",
    ) -> _alcove_archive_model.Exported:
        """Write sessions to an archive: what was said with all its parts, metadata, tree, dialogs and files."""

    def import_archive(
        self,
        file: str | _pathlib.Path,
        *,
        dry_run: bool = False,
        tenant: str = "default",
        progress: _alcove_archive_service.Progress = ...,
        by: str = "library",
    ) -> _alcove_archive_model.Imported:
        """Read sessions back in from an archive: all of it, or nothing."""

    def import_json_sessions(
        self,
        folder: str | _pathlib.Path,
        *,
        app: str = "",
        zone: _datetime.tzinfo | None = None,
        dry_run: bool = False,
        progress: _alcove_archive_service.Progress = ...,
    ) -> _alcove_archive_model.Imported:
        """Import sessions that were kept as one JSON file each: `*.json`, directly in `folder`."""

    def import_session_dirs(
        self,
        folder: str | _pathlib.Path,
        *,
        app: str = "",
        dry_run: bool = False,
        progress: _alcove_archive_service.Progress = ...,
    ) -> _alcove_archive_model.Imported:
        """Import working directories: each folder in `folder` becomes a session of its name with these files."""

class Audit:
    """What was denied, and what was done with authority, keys and sessions."""
    @property
    def failing(self) -> bool: ...
    @property
    def node(self) -> str: ...
    @property
    def waiting(self) -> int: ...
    def chains(self) -> _builtins.list[_alcove_audit_model.Chain]:
        """Return where each node's chain begins and ends."""

    def checkpoint(self) -> None:
        """Note beside the database how far this node's chain has come: done when it is opened, swept and closed."""

    def close(self) -> None:
        """Write what waits."""

    def denied(
        self,
        act: str,
        code: str,
        *,
        subject: str = "",
        tenant: str = "",
        user_id: str = "",
        session_id: str = "",
        who: str = "",
        **words: str,
    ) -> None:
        """Tell that something was denied. A plain call for any thread; it waits for nothing and never raises."""

    def done(self, act: _alcove_audit_model.Act) -> None:
        """Write the row of an act that is no single transaction, before it begins."""

    def erase(
        self,
        *,
        subject: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        before_us: _alcove_clock.Micros | None = None,
        by: str = "library",
    ) -> _alcove_audit_model.Erased:
        """Erase the words of rows: of a subject, a session, a user, or of all before an instant. One of these."""

    def flush(self, *, everything: bool = False) -> None:
        """Write the denials that wait."""

    def list(
        self, filters: _alcove_audit_model.AuditFilters | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> _alcove_audit_model.RecordedPage:
        """List rows, newest first."""

    def records(
        self, *, after_us: _alcove_clock.Micros = 0
    ) -> _alcove_sync_doors.BlockingIterator[_alcove_audit_model.Recorded]:
        """Yield every row, node by node in the order of its chain; of those since an instant, when that is given."""

    def sweep(self, *, days: int = 400, rows: int = 10000000) -> int:
        """Remove what is older or more than is kept of this node's chain; return how many rows went."""

    def verify(self) -> _alcove_audit_model.Verified:
        """Look through the whole audit: whether a row was altered, lost, moved or forged; each finding names its row."""

    def watch(self) -> None:
        """Write denials as they come. Goes on until it is cancelled."""

    def witness(self, who: str) -> _alcove_audit_model.Witness:
        """Return what `queries.record` needs to write the row of an act."""

class Dialogs:
    """Begins dialogs in sessions and moves them. Each method is one transaction, unless it says otherwise."""
    def define(
        self,
        source: _alcove_dialogs_model.Definition | str | _os.PathLike[str] | _collections_abc.Mapping[str, _typing.Any],
        *,
        tenant: str = "default",
    ) -> _alcove_dialogs_model.Definition:
        """Keep a definition, so that sessions can begin with it by name. The same one again changes nothing."""

    def definition(self, name: str, *, tenant: str = "default") -> _alcove_dialogs_model.Definition:
        """Return the newest version of a definition."""

    def definitions(self, *, tenant: str = "default") -> list[_alcove_dialogs_model.Kept]:
        """List definitions by name, the newest version of each first; at most `limits.PAGE`."""

    def fire(self, session_id: str) -> _alcove_dialogs_model.Step | None:
        """Let the time-out of a session's state happen, if it is due; None when it is not, or has happened already."""

    def fire_due(self, limit: int = 100) -> list[_alcove_dialogs_model.Step]:
        """Let time-outs happen that are due, the longest due first, at most `limit`; return those that did."""

    def followed(self, session_id: str) -> _alcove_dialogs_model.Definition:
        """Return the definition that a session follows now, whichever version that is."""

    def get(self, session_id: str) -> _alcove_dialogs_model.Dialog:
        """Return the dialog of a session. One whose state has timed out is returned as it is after that."""

    def keep_time(self, every_s: float = 1) -> None:
        """Let time-outs happen when they are due, until cancelled. A server does; any number of processes may."""

    def preview(
        self, session_id: str, event: str, slots: _collections_abc.Mapping[str, _alcove_values.Json] | None = None
    ) -> _alcove_dialogs_model.Dialog:
        """Return the dialog as it would be after an event, without taking it: to word a reply before it is stored."""

    def put(
        self,
        session_id: str,
        state: str,
        slots: _collections_abc.Mapping[str, _alcove_values.Json] | None = None,
        *,
        messages: _collections_abc.Sequence[_alcove_messages_model.Draft] = ...,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> _alcove_dialogs_model.Step:
        """Set state and slots of a free-form dialog: nothing is checked but their size. Otherwise as `step`."""

    def reset(self, session_id: str, *, clear: bool = False) -> _alcove_dialogs_model.Step | None:
        """Bring a dialog back to its start with what its definition keeps; the history stays."""

    def start(
        self,
        session_id: str,
        dialog: _alcove_dialogs_model.Definition | str,
        *,
        restart: bool = False,
        tenant: str = "default",
    ) -> tuple[_alcove_dialogs_model.Dialog, bool]:
        """Begin a dialog in a session; one that is in that dialog already goes on where it is."""

    def step(
        self,
        session_id: str,
        event: str,
        slots: _collections_abc.Mapping[str, _alcove_values.Json] | None = None,
        *,
        messages: _collections_abc.Sequence[_alcove_messages_model.Draft] = ...,
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> _alcove_dialogs_model.Step:
        """Take an event: state, slots and the messages of the turn are stored together, or nothing is."""

    def steps(self, session_id: str, *, after: int = 0, limit: int = 50) -> list[_alcove_dialogs_model.Step]:
        """Return what happened in a dialog after a version, in order, at most `limit` (up to `limits.PAGE`)."""

    def subscribe(
        self, session_id: str, *, after: int = 0
    ) -> _contextlib.AbstractContextManager[_alcove_dialogs_model.Step]:
        """Yield what happens in a session's dialog after a version, as it happens, whichever process does it."""

    def timeouts(
        self, *, app: str | None = None, tenant: str = "default", follow: bool = True
    ) -> _contextlib.AbstractContextManager[_alcove_dialogs_model.Step]:
        """Yield time-outs of all sessions as they happen, so that somebody can tell the users."""

class Events:
    """Reads the events of runs, and waits for more."""
    def looks(self, run_id: str, wait_s: float | None = None) -> _contextlib.AbstractContextManager[None]:
        """Yield now, and again whenever something of a run may have changed: look anew each time."""

    def read(self, run_id: str, after: int = 0, limit: int = 500) -> list[_alcove_events_model.Event]:
        """Return the events after number `after`, at most `limit` (and the gaps between them)."""

    def subscribe(self, run_id: str, after: int = 0) -> _alcove_sync_doors.BlockingIterator[_alcove_events_model.Event]:
        """Yield the events after number `after` as they come, to the run's last one, or until the run is purged."""

    def wake(self, run_id: str) -> None:
        """Tell this process's listeners that a run has new events."""

class Janitor:
    """Cleans up: by itself in a server (`watch`), and when it is asked."""
    def clean(
        self,
        what: _alcove_janitor_model.What | str,
        *,
        older_s: float | None = None,
        tenant: str | None = None,
        limit: int | None = None,
        dry_run: bool = False,
        by: str = "library",
    ) -> _alcove_janitor_model.Cleaned:
        """Clean up one kind of things; with `dry_run`, tell what would go."""

    def disks(self) -> tuple[_alcove_janitor_model.Disk, ...]:
        """Tell how full the disks are that hold something of the installation."""

    def findings(self) -> _alcove_janitor_model.Findings:
        """Look for folders without a session and sessions without a folder; nothing is changed."""

    def sweep(self, *, dry_run: bool = False, by: str = "janitor") -> _alcove_janitor_model.Swept:
        """Do all that is to be done by itself; with `dry_run`, tell what that would be."""

    def watch(self) -> None:
        """Sweep again and again. Goes on until it is cancelled."""

class Keys:
    """The keys of an installation. A key is told once, when it is made; what is kept is its SHA-256."""
    def authenticate(self, secret: str) -> _alcove_principals_model.Principal:
        """Return who holds a key, and count one request."""

    def create(
        self,
        *,
        role: str = "service",
        tenant: str = "default",
        user_id: str = "",
        label: str = "",
        ttl_s: float | None = None,
        rate_per_s: int | None = None,
        by: str = "library",
    ) -> _alcove_principals_model.Issued:
        """Make a key."""

    def exist(self) -> bool:
        """Return whether there was ever a key: from then on nobody comes in without one. Known within a second."""

    def get(self, key_id: str) -> _alcove_principals_model.Key:
        """Return a key."""

    def list(
        self, *, tenant: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> _alcove_principals_model.KeyPage:
        """List keys, newest first, revoked and expired ones too: of one tenant, or of all."""

    def revoke(self, key_id: str, *, by: str = "library") -> _alcove_principals_model.Key:
        """Revoke a key for good: at once in this process, within `limits.DECISION_S` in every other."""

class Messages:
    """Appends to histories and reads them. Each method is one transaction."""
    def append(
        self,
        session_id: str,
        drafts: _collections_abc.Sequence[_alcove_messages_model.Draft],
        *,
        expected_seq: int | None = None,
        idempotency_key: str | None = None,
    ) -> _alcove_messages_model.Appended:
        """Append messages, all or none; durable when this returns."""

    def append_turn(
        self,
        session_id: str,
        said: str,
        reply: str,
        *,
        expected_seq: int | None = None,
        idempotency_key: str | None = None,
    ) -> _alcove_messages_model.Appended:
        """Append what a user said and what was replied: one turn, one transaction. Raises what `append` does."""

    def check(self, session_id: str) -> list[_alcove_messages_repair.Fault]:
        """Return what a provider would refuse of a session's history, oldest first: see `repair.Fault`."""

    def clear(self, session_id: str) -> int:
        """Hide every message so far and return how many were visible. `seq` goes on from where it was."""

    def compact(
        self,
        session_id: str,
        summarise: _collections_abc.Callable[
            [list[_alcove_messages_model.Message]], str | _collections_abc.Awaitable[str]
        ],
        *,
        keep_rounds: int = 10,
        expected_seq: int | None = None,
    ) -> _alcove_messages_model.Appended | None:
        """Append a summary that stands for everything but the last rounds; nothing is deleted."""

    def examine(
        self, *, repair: bool = False
    ) -> _alcove_sync_doors.BlockingIterator[_alcove_messages_mending.Examined]:
        """Check every session of the installation outside the trash, and repair it when asked; yield each result."""

    def last(self, session_id: str, count: int = 20) -> list[_alcove_messages_model.Message]:
        """Return the last visible messages, oldest first; the cost does not depend on the session's length."""

    def page(
        self,
        session_id: str,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = 50,
        hidden: bool = False,
        objects: bool = True,
    ) -> _alcove_messages_model.MessagePage:
        """Return messages in ascending order: those after a `seq`, or the last ones before it."""

    def pin(self, session_id: str, seq: int) -> _alcove_messages_model.Message:
        """Pin a message: from now on it is in every window, before the rounds. Returns it."""

    def pop(self, session_id: str, count: int = 1) -> list[_alcove_messages_model.Message]:
        """Hide the last visible messages and return them, oldest first. They stay in the history, hidden."""

    def repair(self, session_id: str) -> list[_alcove_messages_repair.Fault]:
        """Make a history acceptable to every provider; return what was wrong with it."""

    def turns(
        self, session_id: str, *, before: int | None = None, limit: int = 50
    ) -> list[_alcove_messages_model.Turn]:
        """Return turns, newest first; page with `before` set to the lowest number seen."""

    def unpin(self, session_id: str, seq: int) -> _alcove_messages_model.Message:
        """Let a pinned message go. Raises NotFoundError."""

    def window(
        self,
        session_id: str,
        *,
        rounds: int | None = None,
        before: int | None = None,
        messages: int | None = None,
        size_bytes: int | None = None,
        tokens: int | None = None,
        count: _alcove_messages_tokens.Counter | None = None,
        media: int | None = None,
        media_bytes: int | None = None,
        over: _alcove_messages_windows.Over = "reference",
        failed: bool = False,
        objects: bool = True,
    ) -> _alcove_messages_model.Window:
        """Return the newest part of the conversation that fits, as a model is shown it."""

class Objects:
    """Keeps bytes once, by their SHA-256, for as long as a message refers to them."""
    def close(self) -> None:
        """Remove the files of an installation that lives in memory."""

    def examine(self) -> _alcove_sync_doors.BlockingIterator[tuple[int, str | None]]:
        """Look at every object: yield how many were looked at so far, and what is wrong with the last one, or None."""

    def keep(self, contents: _collections_abc.Iterable[bytes]) -> dict[str, str]:
        """Write contents that are not there yet; return the file of each by its hash."""

    def read(self, hashes: _collections_abc.Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of objects."""

    def read_of(self, session_id: str, digest: str) -> bytes:
        """Return an object that a message of a session refers to."""

    def release(self, session_id: str) -> int:
        """Give up everything that a session refers to, and remove what nobody else does; return how many claims."""

    def sweep(self, grace_s: float = 3600) -> _alcove_objects_model.Swept:
        """Remove objects that nothing has referred to for so long, and what interrupted removals have left."""

    def usage(self) -> _alcove_objects_model.Usage:
        """Return how many objects there are and how large they are."""

    def watch(self) -> None:
        """Sweep once an hour, for as long as this is not cancelled."""

class Runs:
    """Runs agents in sessions, one run at a time in each, and answers what each of them may do."""
    @property
    def live_count(self) -> int: ...
    @property
    def resolver(self) -> _alcove_runs_granting.Resolver | None: ...
    def adopt(self, *, all_quiet: bool = True) -> None:
        """Look after queued runs that nobody looks after. Done again and again while it is open; by a server at once."""

    def answer(
        self, run_id: str, approval_id: str, *, wait_s: float | None = None
    ) -> _alcove_rights_approvals.Approval:
        """Wait until a request is answered, its time has run out or its run has ended, and return it."""

    def approval(self, run_id: str, approval_id: str) -> _alcove_rights_approvals.Approval:
        """Return a request of a run as it stands."""

    def approvals(
        self,
        run_id: str | None = None,
        *,
        tenant: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        waiting: bool = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> _alcove_runs_approval_queries.ApprovalPage:
        """List requests, newest first; every given filter must hold."""

    def approve(
        self, run_id: str, approval_id: str, *, reason: str = "", by: str = "local"
    ) -> _alcove_rights_approvals.Approval:
        """Say yes to a request of a run, for these parameters and this once. Twice is the first answer again."""

    def ask(
        self,
        run_id: str,
        kind: str,
        name: str,
        operation: str = "",
        arguments: _alcove_values.Json = None,
        *,
        message: str = "",
        expires_s: float = 3600,
        idempotency_key: str | None = None,
        by: str = "library",
    ) -> _alcove_rights_approvals.Approval:
        """Ask a person whether a run may do this, and return the request; the run is `waiting` from then on."""

    def authorize(
        self, run_id: str, checks: _collections_abc.Sequence[_alcove_runs_deciding.Check], *, fresh: bool = False
    ) -> _builtins.list[_alcove_runs_deciding.Decision]:
        """Answer checks about one run, at one moment: see `check`."""

    def begin(self, claimed: _alcove_runs_queue_queries.Claimed) -> None:
        """Start a run that was queued; its session is held for it."""

    def cancel(self, run_id: str, *, by: str = "library") -> _alcove_runs_model.Run:
        """Cancel a run and return it: ended, when this process looks after it; another one is asked to end it."""

    def cancel_session(self, session_id: str) -> None:
        """Cancel whatever runs or waits in a session, here or in another process, and wait until it has ended."""

    def ceiling(self, session_id: str) -> _alcove_rights_model.Rights | None:
        """Return what runs in a session may be granted at most, as set for the session itself; None for no bound."""

    def chat(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        timeout_s: float | None = None,
        busy: str = "reject",
    ) -> _alcove_runs_model.Reply:
        """Start a run, wait for its end and return it with its answer."""

    def check(
        self, run_id: str, kind: str, name: str, operation: str = "", caller: str = "", *, fresh: bool = False
    ) -> _alcove_runs_deciding.Decision:
        """Return whether a run may do something now. A plain call that never raises for what it is asked."""

    def close(self, drain_s: float = 0) -> None:
        """Start no more runs, give the live ones `drain_s` seconds to end, then cancel them and wait."""

    def deny(
        self, run_id: str, approval_id: str, *, reason: str = "", by: str = "local"
    ) -> _alcove_rights_approvals.Approval:
        """Say no to a request of a run: see `approve`."""

    def events(self, run_id: str, after: int = 0) -> _alcove_sync_doors.BlockingIterator[_alcove_events_model.Event]:
        """Yield the events of a run after number `after`, to its last one, waiting for those to come."""

    def evict(self, session_ids: _builtins.list[str]) -> None:
        """End what is left of programs of sessions in which nothing can start any more: see `Reconciler.evict`."""

    def fail(self, run_id: str, error: str) -> _alcove_runs_model.Run:
        """End a run that failed: see `finish`."""

    def finish(
        self, run_id: str, *, status: str = "finished", text: str = "", error: str = "", exit_code: int | None = None
    ) -> _alcove_runs_model.Run:
        """End a run, with its answer, and with it its authority. Its records stay."""

    def get(self, run_id: str) -> _alcove_runs_model.Run:
        """Return a run."""

    def give_way(self, run_id: str) -> None:
        """Have a run end, for a message that came after it; one of another process is asked to."""

    def grant(self, run_id: str) -> _alcove_runs_checking.Held:
        """Return a run's authority: as it was frozen, what was cut off and withdrawn, and what is left."""

    def heartbeat(self, run_id: str) -> _alcove_runs_model.Run:
        """Say that a run goes on, and return it: `cancelling` tells that somebody asked to cancel it."""

    def holds(self, session_id: str) -> bool:
        """Return whether a run goes on in a session, in this process."""

    def knows(self, agent: str) -> bool:
        """Return whether there is an agent of that name in this process."""

    def list(
        self,
        session_id: str | None = None,
        *,
        tenant: str | None = None,
        user_id: str | None = None,
        agent: str | None = None,
        status: str | None = None,
        parent_run: str | None = None,
        root_run: str | None = None,
        hosted: bool | None = None,
        active: bool | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> _alcove_runs_model.RunPage:
        """List runs, newest first; every given filter must hold."""

    def lost(self) -> _builtins.list[_alcove_runs_model.Run]:
        """Return the runs whose holder is gone, or whose host was not heard of: what a sweep would mark lost."""

    def narrow(
        self, run_id: str, within: _alcove_rights_model.Rights, *, reason: str = "", made_by: str = "local"
    ) -> _alcove_runs_checking.Held:
        """Keep of a run's grant, and of those below it, only what is within `within` (`alcove.bound`)."""

    def note_state(self, run_id: str, scope: str, key: str, version: int) -> None:
        """Tell whoever listens to a run that it has set a value; what the value is, is read where it is."""

    def of_token(self, token: str) -> _alcove_runs_hosted.Bearer:
        """Return the live run that a token is of, and whose that is."""

    def owner(self, run_id: str) -> _alcove_runs_checking.Whose | None:
        """Return whose a run is, which never changes; None when there is none of that id."""

    def pull(self, run_id: str, *, limit: int = 100) -> _alcove_runs_steering_queries.Pulled:
        """Take the messages that wait for a run, oldest first: each is told once, and stands in the history then."""

    def queue(self, session_id: str) -> _builtins.list[_alcove_runs_queue_queries.Queued]:
        """Return what waits in a session, the next one first; `cancel` takes a run out of it."""

    def reconcile(self) -> _alcove_runs_reconciler.Reconciled:
        """End and remove what servers that died have left of runs, by whatever it can be known."""

    def recover(self) -> int:
        """Mark runs lost whose holder is gone, end what they left, and return how many. Done when Alcove opens."""

    def redeem(
        self,
        run_id: str,
        approval_id: str,
        kind: str,
        name: str,
        operation: str = "",
        arguments: _alcove_values.Json = None,
        *,
        caller: str = "",
    ) -> _alcove_runs_deciding.Decision:
        """Answer a check of something that needs approval, by an approval of exactly that: yes once, then no more."""

    def register(
        self,
        agent: str,
        *,
        run_id: str | None = None,
        session_id: str = "",
        tenant: str = "default",
        user_id: str = "",
        parent_run: str = "",
        grant: _alcove_runs_grants.Asked | None = None,
        stale_s: float = 3600,
        by: str = "library",
    ) -> _alcove_runs_hosted.Registered:
        """Record a run that the caller executes, with its frozen grant, in one transaction."""

    def reply(self, run_id: str) -> _alcove_runs_model.Reply:
        """Wait for the end of a run and return it with its answer."""

    def report(
        self,
        run_id: str,
        *,
        text: str = "",
        stream: str = "stdout",
        messages: _collections_abc.Sequence[_alcove_messages_model.Draft] = ...,
        idempotency_key: str | None = None,
    ) -> _alcove_runs_hosted_queries.Reported:
        """Write what a run said, all or nothing; it goes on, by that."""

    def revoke(self, run_id: str, *, reason: str = "", made_by: str = "local") -> _alcove_runs_checking.Held:
        """Withdraw a run's whole grant, and with it those of the runs below it."""

    def set_ceiling(
        self, session_id: str, rights: _alcove_rights_model.Rights | None, *, made_by: str = "local"
    ) -> None:
        """Set what runs in a session, and in those below it, may be granted at most; None takes the bound away."""

    def start(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        language: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
        grant: _alcove_runs_grants.Asked | None = None,
        parent_run: str = "",
        busy: str = "reject",
        by: str = "library",
    ) -> _alcove_runs_model.Run:
        """Start a run on a message and return it; it goes on whether anybody listens or not."""

    def state_of(self, run_id: str, scope: str, operation: str, caller: str = "") -> _alcove_runs_remembering.StateOf:
        """Return whose state a run means by a scope, if it may use that now."""

    def steer(
        self,
        message: str,
        *,
        run_id: str = "",
        session_id: str = "",
        agent: str = "",
        idempotency_key: str | None = None,
        by: str = "library",
    ) -> _alcove_runs_steering_queries.Steered:
        """Put a message to a run that goes on, which takes it when it is ready for it (`pull`)."""

    def stream(
        self,
        session_id: str,
        message: str,
        *,
        agent: str | None = None,
        timeout_s: float | None = None,
        busy: str = "reject",
    ) -> _alcove_sync_doors.BlockingIterator[_alcove_events_model.Event]:
        """Start a run and yield its events to the last one. Leaving early does not cancel it."""

    def sweep_expired(self) -> int:
        """Write that requests were not answered in time; return how many. Done again and again while it is open."""

    def sweep_stale(self) -> int:
        """Mark hosted runs lost that were not heard of in time; return how many. Done again and again while it is open."""

    def tree(self, run_id: str, *, limit: int = 1000) -> _builtins.list[_alcove_runs_model.Run]:
        """Return a run and those that got their rights from it, nearest first, at most `limit` of them."""

    def unread(self, run_id: str) -> _builtins.list[_alcove_runs_steering_queries.Unread]:
        """Return the messages that were put to a run and that it has not taken, oldest first."""

    def watch(self) -> None:
        """Recover again and again, so that the end of another process is noticed. Goes on until it is cancelled."""

class Search:
    """Finds messages and titles by their words."""
    def catch_up(self) -> int:
        """Index everything that is there now; return how many messages and titles that were. Safe to be cancelled."""

    def close(self) -> None:
        """Let go of the index, where it is a database of its own."""

    def find(
        self,
        query: str,
        *,
        tenant: str = "default",
        user_id: str | None = None,
        app: str | None = None,
        session_id: str | None = None,
        limit: int = 20,
    ) -> _alcove_search_model.Found:
        """Find messages and titles that have every word of a query."""

    def follow(self) -> None:
        """Index what is appended, by whatever process, for as long as this is not cancelled."""

    def forget(self, session_id: str) -> None:
        """Take everything of a session out of the index: before its rows go, and after it is in the trash."""

    def lag(self) -> int:
        """Return how many messages and titles the index does not have yet."""

    def places(self, session_id: str) -> int:
        """Return how many places of a session the index has."""

    def rebuild(self) -> int:
        """Make the index anew from the histories; return how many messages and titles are in it."""

class Lifecycle:
    """Sessions with their folders and their ends. Sessions that it returns singly are handles."""
    def active_count(self, *, app: str | None = None, tenant: str = "default") -> int:
        """Return how many users' live sessions are active: those with a key that have not expired. Looks at each."""

    def children(
        self, session_id: str, *, user_id: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> _alcove_sessions_model.Page:
        """List the direct children of a session, newest first: of one user, or all."""

    def count(self) -> int:
        """Return how many sessions there are outside the trash, of all tenants. Looks at each."""

    def create(
        self,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        app: str | None = None,
        key: str | None = None,
        parent_id: str | None = None,
        title: str = "",
        agent: str | None = None,
        metadata: _alcove_values.Metadata | None = None,
        ttl_s: float | _msgspec.UnsetType | None = ...,
        lifetime_s: float | None = None,
        tenant: str = "default",
        idempotency_key: str | None = None,
    ) -> Handle:
        """Create a session and its folder: see `Sessions.create`. When the folder cannot be made, there is neither."""

    def deeds(
        self, session_id: str | None = None, *, limit: int = 50, cursor: str | None = None, tenant: str = "default"
    ) -> _alcove_lifecycle_model.DeedPage:
        """List what went to the trash, came back and was purged, when, why and by whom: newest first."""

    def delete(
        self, session_id: str, *, purge: bool = False, version: int | None = None, by: str = "library"
    ) -> _alcove_lifecycle_model.Receipt:
        """Move a session and its descendants to the trash, or remove them for good."""

    def find(self, session_id: str) -> _alcove_sessions_model.Session | None:
        """Return a session, also an expired or trashed one, or None."""

    def find_key(
        self, key: str, *, user_id: str = "", app: str = "", tenant: str = "default"
    ) -> _alcove_sessions_model.Session | None:
        """Return the session that holds a key, or None."""

    def find_prefix(
        self, prefix: str, *, trashed: bool = False, tenant: str = "default", user_id: str | None = None
    ) -> _builtins.list[_alcove_sessions_model.Session]:
        """Return sessions whose id begins with `prefix`, in order of id, at most `limits.PREFIX_SESSIONS` of them."""

    def get(self, session_id: str) -> Handle:
        """Return a session: see `Sessions.get`."""

    def ids_of(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, tenant: str = "default"
    ) -> tuple[_builtins.list[str], str | None]:
        """List the ids of a user's sessions, newest first: `list` without the records, at a fraction of its cost."""

    def list(
        self,
        *,
        user_id: str | None = None,
        app: str | None = None,
        parent_id: str | None = None,
        root_id: str | None = None,
        status: str | None = None,
        metadata: _alcove_values.Metadata | None = None,
        active_since_us: int | None = None,
        active_before_us: int | None = None,
        limit: int = 50,
        cursor: str | None = None,
        tenant: str = "default",
    ) -> _alcove_sessions_model.Page:
        """List sessions, newest first; every given filter must hold, and the trashed are left out unless asked for."""

    def live(
        self,
        user_id: str,
        key: str = "",
        *,
        app: str = "",
        agent: str = "",
        ttl_s: float | _msgspec.UnsetType | None = ...,
        tenant: str = "default",
    ) -> tuple[Handle, bool]:
        """Find or make the user's live session: see `Sessions.live`. Its folder comes when it is first needed."""

    def owner(self, session_id: str) -> tuple[str, str] | None:
        """Return tenant and user of a session, which never change; also of a trashed one, or None."""

    def pin(self, session_id: str, pinned: bool = True) -> _alcove_sessions_model.Session:
        """Keep a session from expiring, or let it expire again."""

    def restore(
        self, session_id: str, *, without_keys: bool = False, as_root: bool = False, by: str = "library"
    ) -> _alcove_lifecycle_model.Restored:
        """Bring back from the trash exactly what went with one trashing, whichever session of it is named."""

    def spawn(
        self,
        parent_id: str,
        *,
        title: str = "",
        user_id: str | None = None,
        agent: str | None = None,
        key: str | None = None,
        metadata: _alcove_values.Metadata | None = None,
    ) -> Handle:
        """Create a child and its folder: see `Sessions.spawn`."""

    def summary(self, session_id: str) -> _alcove_sessions_model.Summary:
        """Return a session in a few words."""

    def touch(self, session_id: str) -> _alcove_sessions_model.Session:
        """Record activity. This also revives a session that was idle for too long and has not been swept yet."""

    def trashing(self, session_id: str) -> _alcove_lifecycle_model.Trashing | None:
        """Return the trashing that a session waits in, None when it is not in the trash."""

    def trashings(
        self, *, limit: int = 50, cursor: str | None = None, tenant: str = "default"
    ) -> _alcove_lifecycle_model.TrashPage:
        """List what is in the trash, newest first."""

    def tree(self, session_id: str, *, limit: int = 1000) -> _builtins.list[_alcove_sessions_model.Session]:
        """Return a session and its descendants, nearest first, at most `limit` of them."""

    def update(
        self, session_id: str, changes: _alcove_sessions_model.Changes, *, version: int | None = None
    ) -> _alcove_sessions_model.Session:
        """Change title, agent, metadata (merged by name, None removes one), pin, TTL or lifetime."""

class State:
    """Values by scope and key, each with a version for compare-and-set."""
    def delete(
        self,
        scope: str,
        key: str,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        expected_version: int | None = None,
    ) -> None:
        """Delete a value; with `expected_version` only the one that has it."""

    def find(
        self, scope: str, key: str, *, of: str = "", tenant: str = "default", app: str = ""
    ) -> _alcove_state_model.Value | None:
        """Return a value, None where there is none; otherwise as `get`."""

    def get(
        self, scope: str, key: str, *, of: str = "", tenant: str = "default", app: str = ""
    ) -> _alcove_state_model.Value:
        """Return a value."""

    def list(
        self,
        scope: str,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        limit: int = 50,
        cursor: str | None = None,
    ) -> _alcove_state_model.ValuePage:
        """List the values of a place by key."""

    def set(
        self,
        scope: str,
        key: str,
        value: _alcove_values.Json,
        *,
        of: str = "",
        tenant: str = "default",
        app: str = "",
        ttl_s: float | None = None,
        expected_version: int | None = None,
    ) -> _alcove_state_model.Value:
        """Set a value, in one transaction; with `expected_version` only in place of the one that has it."""

    def sweep(self, *, dry_run: bool = False) -> int:
        """Remove what has expired and what belonged to runs that have ended; return how many values."""

class Workspaces:
    """The folders of sessions, and (`Files`) what is in them."""
    @property
    def leases(self) -> bool: ...
    @property
    def quota(self) -> _alcove_workspaces_changing.Quota | None: ...
    def archive(self, session_id: str, path: str = "") -> _contextlib.AbstractContextManager[bytes]:
        """Yield a tar.gz of a workspace, or of one folder of it: see `packing.pack` for what is in it."""

    def close(self) -> None:
        """Finish the writes that are under way, then let go of the base folder."""

    def delete(
        self,
        session_id: str,
        path: str,
        *,
        recursive: bool = False,
        condition: _alcove_workspaces_model.Condition | None = None,
        fence: _alcove_sessions_heads.Fence | None = None,
        by: str = "library",
    ) -> None:
        """Delete a file, a link, an empty folder, or any folder with `recursive`."""

    def ensure(self, session_id: str, *, guarded: bool = False) -> int | None:
        """Make the workspace and the home of a session where they are missing; return its leased uid, if any."""

    def extract(
        self,
        session_id: str,
        data: _alcove_workspaces_streams.Content,
        path: str = "",
        *,
        replace: bool = False,
        skip: bool = False,
        fence: _alcove_sessions_heads.Fence | None = None,
    ) -> _alcove_workspaces_model.Extracted:
        """Put what is in a tar or tar.gz archive into a workspace, or one folder of it: all of it or nothing."""

    def home(self, session_id: str) -> _pathlib.Path:
        """Return the absolute path of the HOME of a session's programs."""

    def iter_read(self, session_id: str, path: str, *, start: int = 0) -> _contextlib.AbstractContextManager[bytes]:
        """Yield a file of any length from byte `start` on, in pieces of at most `limits.SEND_BYTES`."""

    def list_files(self, session_id: str, path: str = "") -> _alcove_workspaces_model.Listing:
        """Return every file of a workspace or of one folder of it, recursively, sorted by path."""

    def measure(self, session_id: str) -> _alcove_workspaces_model.Usage:
        """Measure a workspace now; about 24 ms for 10,000 files."""

    def missing(self, session_ids: _collections_abc.Iterable[str]) -> list[str]:
        """Return those that have no workspace folder."""

    def mkdir(self, session_id: str, path: str, *, fence: _alcove_sessions_heads.Fence | None = None) -> None:
        """Make a folder, and those above it. Raises what `write` does."""

    def move(
        self,
        session_id: str,
        path: str,
        to: str,
        *,
        replace: bool = False,
        condition: _alcove_workspaces_model.Condition | None = None,
        fence: _alcove_sessions_heads.Fence | None = None,
    ) -> _alcove_workspaces_model.File:
        """Give a file, link or folder another path in the same workspace, in one step; return what is there now."""

    def open_read(self, session_id: str, path: str) -> tuple[int, _alcove_workspaces_model.File]:
        """Open a regular file; the caller closes the descriptor."""

    def path(self, session_id: str) -> _pathlib.Path:
        """Return the absolute path of a session's workspace, whether it is there or not."""

    def places(self) -> list[_alcove_workspaces_model.Stray]:
        """Return every folder of the base, of its trash and of the homes that is named like one of a session."""

    def purge(self, session_id: str, trash_id: str) -> _alcove_workspaces_model.Removed:
        """Remove a session's workspace and home for good, then give its uid back. May be repeated."""

    def read(self, session_id: str, path: str) -> bytes:
        """Return the content of a file of at most `limits.FILE_BYTES`."""

    def remove_stray(self, stray: _alcove_workspaces_model.Stray) -> _alcove_workspaces_model.Removed:
        """Remove a folder for good that is known to belong to nobody."""

    def settle(self, session_id: str, *, guarded: bool = False) -> None:
        """Put owners and modes of a session's folders right, which its programs may have changed; makes none."""

    def stat(self, session_id: str, path: str) -> _alcove_workspaces_model.File:
        """Return what is at a path: a link itself, not what it points to."""

    def stream_write(
        self,
        session_id: str,
        path: str,
        data: _alcove_workspaces_streams.Content,
        *,
        condition: _alcove_workspaces_model.Condition | None = None,
        fence: _alcove_sessions_heads.Fence | None = None,
        limit_bytes: int | None = None,
    ) -> _alcove_workspaces_model.File:
        """Make or replace a file as `write` does, of any length and from a source of any speed, in bounded memory."""

    def totals(self) -> _alcove_workspaces_queries.Totals:
        """Return what all workspaces take, as last measured."""

    def trash(self, going: _collections_abc.Iterable[tuple[str, str]]) -> dict[str, _alcove_errors.AlcoveError]:
        """Move workspaces into their trashings: pairs of session id and trash id. May be repeated."""

    def unmake(self, session_id: str) -> None:
        """Take back what `ensure` made for a session that came to nothing; a folder that holds something stays."""

    def untrash(self, coming: _collections_abc.Iterable[tuple[str, str]]) -> dict[str, _alcove_errors.AlcoveError]:
        """Move workspaces back from their trashings; as `trash`."""

    def usage(self, session_id: str) -> _alcove_workspaces_model.Usage:
        """Return bytes and files of a workspace as last measured: after each run and each write from outside."""

    def vacant(self, session_ids: _collections_abc.Iterable[str]) -> set[str]:
        """Return those whose workspace holds nothing, or is not there."""

    def watch(
        self, session_id: str, after: int | None = None
    ) -> _contextlib.AbstractContextManager[_alcove_events_model.Event]:
        """Yield what changes in the files of a session: see `Watches.watch`."""

    def write(
        self,
        session_id: str,
        path: str,
        data: bytes | _collections_abc.Iterable[bytes],
        *,
        condition: _alcove_workspaces_model.Condition | None = None,
        fence: _alcove_sessions_heads.Fence | None = None,
    ) -> _alcove_workspaces_model.File:
        """Make or replace a file, atomically and durably; missing folders are made."""

class Handle:
    """A session and its services. The fields are those of the moment it was read; `refresh` reads it again."""
    @property
    def id(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    @property
    def app(self) -> str: ...
    @property
    def user_id(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def parent_id(self) -> str: ...
    @property
    def root_id(self) -> str: ...
    @property
    def depth(self) -> int: ...
    @property
    def title(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def metadata_json(self) -> str: ...
    @property
    def pinned(self) -> int: ...
    @property
    def ttl_us(self) -> _alcove_clock.Micros: ...
    @property
    def ends_us(self) -> _alcove_clock.Micros: ...
    @property
    def version(self) -> int: ...
    @property
    def created_us(self) -> _alcove_clock.Micros: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def message_count(self) -> int: ...
    @property
    def turn_count(self) -> int: ...
    @property
    def child_count(self) -> int: ...
    @property
    def last_activity_us(self) -> _alcove_clock.Micros: ...
    @property
    def epoch(self) -> int: ...
    @property
    def lease_run(self) -> str: ...
    @property
    def dialog_state(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def sessions(self) -> Lifecycle: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def dialogs(self) -> Dialogs: ...
    @property
    def replayed(self) -> bool: ...
    @property
    def created_at(self) -> _datetime.datetime: ...
    @property
    def expires_at(self) -> _datetime.datetime | None: ...
    @property
    def expires_us(self) -> _alcove_clock.Micros | None: ...
    @property
    def last_activity(self) -> _datetime.datetime: ...
    @property
    def metadata(self) -> _alcove_values.Metadata: ...
    def append(
        self,
        drafts: _collections_abc.Sequence[_alcove_messages_model.Draft],
        *,
        expected_seq: int | None = None,
        idempotency_key: str | None = None,
    ) -> _alcove_messages_model.Appended:
        """Append messages: see `Messages.append`."""

    def append_turn(
        self, said: str, reply: str, *, idempotency_key: str | None = None
    ) -> _alcove_messages_model.Appended:
        """Append what a user said and what was replied: see `Messages.append_turn`."""

    def chat(self, message: str, *, agent: str | None = None, busy: str = "reject") -> _alcove_runs_model.Reply:
        """Run an agent on a message and return its answer: see `Runs.chat`, and `Runs.start` for `busy`."""

    def children(self, *, cursor: str | None = None) -> _alcove_sessions_model.Page:
        """List the direct children, newest first."""

    def clear(self) -> None:
        """Bring the dialog back to its start, if there is one, and hide the history: one transaction."""

    def delete(self, *, purge: bool = False) -> _alcove_lifecycle_model.Receipt:
        """Move it to the trash, or remove it for good: see `Lifecycle.delete`."""

    def dialog(self) -> _alcove_dialogs_model.Dialog:
        """Return the dialog: see `Dialogs.get`."""

    def last(self, count: int = 20) -> list[_alcove_messages_model.Message]:
        """Return the last visible messages, oldest first."""

    def refresh(self) -> Handle:
        """Return the session as it is now."""

    def reset(self) -> None:
        """Bring the dialog back to its start; the history stays."""

    def spawn(
        self, *, title: str = "", agent: str | None = None, metadata: _alcove_values.Metadata | None = None
    ) -> Handle:
        """Create a child."""

    def step(
        self,
        event: str,
        slots: _collections_abc.Mapping[str, _alcove_values.Json] | None = None,
        *,
        messages: _collections_abc.Sequence[_alcove_messages_model.Draft] = ...,
    ) -> _alcove_dialogs_model.Step:
        """Take an event: see `Dialogs.step`."""

    def stream(
        self, message: str, *, agent: str | None = None, busy: str = "reject"
    ) -> _alcove_sync_doors.BlockingIterator[_alcove_events_model.Event]:
        """Run an agent on a message and yield what happens: see `Runs.stream`, and `Runs.start` for `busy`."""

    def update(self, changes: _alcove_sessions_model.Changes) -> _alcove_sessions_model.Session:
        """Change title, agent, metadata, pin, TTL or lifetime."""

    def window(self, rounds: int | None = None, *, tokens: int | None = None) -> _alcove_messages_model.Window:
        """Return the newest part of the history that fits, as a model is shown it: see `Messages.window`."""

def open(
    database: str | None = None,
    *,
    workspaces: str | _os.PathLike[str] | None = None,
    settings: _alcove_settings_model.Settings | None = None,
    clock: _alcove_clock.Clock | None = None,
    ttl_s: float | None = None,
    folders: bool | None = None,
) -> Alcove:
    """Open an installation; use it as `async with alcove.open() as hub`."""
