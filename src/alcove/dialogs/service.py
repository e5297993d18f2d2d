"""Dialogs, as callers use them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import msgspec

from alcove import ids, limits
from alcove.database.idempotency import Once, once, write_once
from alcove.database.op import Database, Operation, P
from alcove.dialogs import definitions, history, loading, queries, rules
from alcove.dialogs.catalog import Catalog
from alcove.dialogs.listeners import Listeners
from alcove.dialogs.model import FREE_FORM, Definition, Dialog, Event, Kept, Step
from alcove.errors import AlcoveError, ConflictError, InvalidError, SessionBusyError
from alcove.messages.model import Draft, Stored
from alcove.messages.writing import NOTHING, Said, written
from alcove.objects.service import Objects
from alcove.pages import page_limit
from alcove.values import Json

_log = logging.getLogger("alcove.dialogs")
_encode = msgspec.msgpack.Encoder().encode


class Dialogs:
    """Begins dialogs in sessions and moves them. Each method is one transaction, unless it says otherwise.

    A dialog whose state has timed out is not moved or read before the time-out has happened: whoever comes first lets
    it happen, and it happens once, whoever else comes at the same time.
    """

    def __init__(self, database: Database, objects: Objects | None = None) -> None:
        self._database = database
        self._objects = objects
        self._catalog = Catalog(database)
        self._listeners = Listeners()

    # -- definitions -----------------------------------------------------------------------------------------------

    async def define(
        self, source: Definition | str | os.PathLike[str] | Mapping[str, Any], *, tenant: str = "default"
    ) -> Definition:
        """Keep a definition, so that sessions can begin with it by name. The same one again changes nothing.

        Sessions in an older version follow at their next step, if this one declares how (`migrations`); the others stay
        in theirs.

        Args:
            source: A definition, the path of a `.toml` or `.json` file, or the document: see `loading.load`.
            tenant: Whose.

        Raises:
            DefinitionError: It cannot be read, or has faults.
            AlreadyExistsError: This version is there with other content.
        """
        definition = source if isinstance(source, Definition) else loading.load(source)
        await self._catalog.keep(definition, tenant)
        return definition

    async def definition(self, name: str, *, tenant: str = "default") -> Definition:
        """Return the newest version of a definition.

        Raises:
            DialogNotFoundError: There is none of that name.
        """
        return (await self._catalog.newest(name, tenant))[1]

    async def definitions(self, *, tenant: str = "default") -> list[Kept]:
        """List definitions by name, the newest version of each first; at most `limits.PAGE`."""
        return await self._database.read(definitions.names, tenant, limits.PAGE)

    async def followed(self, session_id: str) -> Definition:
        """Return the definition that a session follows now, whichever version that is.

        Raises:
            DialogNotFoundError: The session has no dialog, or a free-form one.
        """
        return await self._database.read(queries.followed, session_id, self._catalog.known)

    # -- where a dialog stands -------------------------------------------------------------------------------------

    async def get(self, session_id: str) -> Dialog:
        """Return the dialog of a session. One whose state has timed out is returned as it is after that.

        Raises:
            SessionNotFoundError: There is no such session, or it is in the trash.
            DialogNotFoundError: It has no dialog.
        """
        dialog = await self._database.read(queries.get, session_id, self._catalog.known, due_too=False)
        if dialog is None:
            # A run that holds the session is not disturbed: the time-out waits for its end, and readers are told as is.
            with contextlib.suppress(SessionBusyError):
                await self.fire(session_id)
            dialog = await self._database.read(queries.get, session_id, self._catalog.known, due_too=True)
            assert dialog is not None
        return dialog

    async def start(
        self,
        session_id: str,
        dialog: Definition | str,
        *,
        restart: bool = False,
        tenant: str = "default",
    ) -> tuple[Dialog, bool]:
        """Begin a dialog in a session; one that is in that dialog already goes on where it is.

        Args:
            session_id: Where.
            dialog: A definition (kept as by `define`), the name of a kept one, or `free-form`: any state, any slots.
            restart: Leave the dialog that the session is in, and begin at the start.
            tenant: Whose definition.

        Returns:
            The dialog, and whether it was begun.

        Raises:
            DialogNotFoundError: There is no definition of that name.
            ConflictError: The session is in another dialog.
            SessionNotFoundError, SessionExpiredError, SessionBusyError: The session takes no activity.
        """
        definition, definition_id = None, ""
        if isinstance(dialog, Definition):
            definition, definition_id = dialog, await self._catalog.keep(dialog, tenant)
        elif dialog != FREE_FORM:
            definition_id, definition = await self._catalog.newest(dialog, tenant)
        step = await self._database.write(queries.start, session_id, definition_id, definition, restart=restart)
        self._listeners.tell(step)
        return await self.get(session_id), step is not None

    async def preview(self, session_id: str, event: str, slots: Mapping[str, Json] | None = None) -> Dialog:
        """Return the dialog as it would be after an event, without taking it: to word a reply before it is stored.

        Its `version` is the present one, for `expected_version` of the step to come. Raises what `step` does.
        """
        for _ in range(limits.EXPECTED_STEPS):
            event_ = Event(event, slots or {})
            dialog = await self._database.read(queries.preview, session_id, event_, self._catalog.known)
            if dialog is not None:
                return dialog
            await self.fire(session_id)
        raise _too_fast(session_id)

    # -- what moves it ---------------------------------------------------------------------------------------------

    async def step(
        self,
        session_id: str,
        event: str,
        slots: Mapping[str, Json] | None = None,
        *,
        messages: Sequence[Draft] = (),
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Step:
        """Take an event: state, slots and the messages of the turn are stored together, or nothing is.

        When the state has timed out, that happens first, in a transaction of its own, and the event is taken by the
        state after it.

        Args:
            session_id: Where.
            event: What happened.
            slots: What it brings.
            messages: Appended with it, as by `Messages.append`; none by default.
            expected_version: When given, step only if the dialog is at exactly that version.
            idempotency_key: With it, a repetition of the same step changes nothing and gets the first answer.

        Raises:
            EventRefusedError: The state does not take that event; the remedy names those that it takes.
            InvalidError: A slot is of the wrong type, missing, or not the event's.
            TooLargeError: The slots are more than `limits.SLOTS_BYTES` together.
            VersionMismatchError: The dialog is at another version.
            ConflictError: It is free-form.
            DialogNotFoundError: The session has no dialog.
            SessionNotFoundError, SessionExpiredError, SessionBusyError: The session takes no activity.
            IdempotencyError: The key was used with another step.
        """
        happened = Event(event, slots or {})

        async def take(said: Said) -> Step:
            request = _request(session_id, idempotency_key, event, happened.slots, said.messages, expected_version)
            for _ in range(limits.EXPECTED_STEPS):
                step = await self._once(
                    request, queries.step, session_id, happened, said, self._catalog.known,
                    expected_version=expected_version, request=request,
                )  # fmt: skip
                if step is not None:
                    self._listeners.tell(step)
                    return step
                await self.fire(session_id)
            raise _too_fast(session_id)

        return await written(self._objects, messages, take) if messages else await take(NOTHING)

    async def put(
        self,
        session_id: str,
        state: str,
        slots: Mapping[str, Json] | None = None,
        *,
        messages: Sequence[Draft] = (),
        expected_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Step:
        """Set state and slots of a free-form dialog: nothing is checked but their size. Otherwise as `step`.

        Raises:
            ConflictError: The dialog is declared.
        """
        ids.name(state, field="state", empty=True)
        if len(state) > limits.DIALOG_NAME_CHARS:
            raise InvalidError(
                f"state has {len(state)} characters",
                field="state",
                limit=limits.DIALOG_NAME_CHARS,
                remedy="shorten it",
            )
        kept = dict(slots or {})
        rules.encoded(kept)

        async def take(said: Said) -> Step:
            request = _request(session_id, idempotency_key, state, kept, said.messages, expected_version)
            step = await self._once(
                request, queries.put, session_id, state, kept, said, expected_version=expected_version, request=request
            )
            assert step is not None
            self._listeners.tell(step)
            return step

        return await written(self._objects, messages, take) if messages else await take(NOTHING)

    async def _once(
        self, request: Once | None, operation: Operation[P, Step | None], /, *args: P.args, **kwargs: P.kwargs
    ) -> Step | None:
        if request is None:
            return await self._database.write(operation, *args, **kwargs)
        # An operation that did nothing has stored no answer, so what `write_once` returns is a step or None.
        once_only = cast("Operation[P, Step]", operation)
        step, replayed = await write_once(self._database, request, Step, once_only, *args, **kwargs)
        return msgspec.structs.replace(step, replayed=True) if replayed else step

    async def reset(self, session_id: str, *, clear: bool = False) -> Step | None:
        """Bring a dialog back to its start with what its definition keeps; the history stays.

        Args:
            session_id: Where.
            clear: Hide the history too, in the same transaction. Then a session without a dialog will do.

        Raises:
            DialogNotFoundError: There is no dialog, and `clear` is false.
            SessionNotFoundError, SessionExpiredError, SessionBusyError: The session takes no activity.
        """
        step = await self._database.write(queries.reset, session_id, self._catalog.known, clear=clear)
        self._listeners.tell(step)
        return step

    # -- time ------------------------------------------------------------------------------------------------------

    async def fire(self, session_id: str) -> Step | None:
        """Let the time-out of a session's state happen, if it is due; None when it is not, or has happened already.

        It is no activity, and an expired session takes it too.

        Raises:
            SessionBusyError: A run holds the session; the time-out waits for its end.
            SessionNotFoundError: There is no such session, or it is in the trash.
        """
        step = await self._database.write(queries.fire, session_id, self._catalog.known)
        self._listeners.tell(step)
        return step

    async def fire_due(self, limit: int = limits.DUE_SESSIONS) -> list[Step]:
        """Let time-outs happen that are due, the longest due first, at most `limit`; return those that did.

        Each is a transaction of its own. Any number of processes may do this at once: each time-out happens in one of
        them. Sessions that a run holds are left for later.
        """
        fired: list[Step] = []
        after = (0, "")
        while len(fired) < limit:
            found = await self._database.read(queries.due, after, limit)
            for due in found:
                after = due
                try:
                    step = await self.fire(due[1])
                except AlcoveError as error:
                    # It went to the trash meanwhile, or a run took it: the next sweep looks again.
                    _log.info("time-out not fired", extra={"session_id": due[1], "reason": error.code})
                    continue
                except Exception:  # noqa: BLE001 - one that cannot be fired must not keep the others from it
                    _log.exception("time-out failed", extra={"session_id": due[1]})
                    continue
                if step is not None:
                    fired.append(step)
                if len(fired) == limit:
                    break
            if len(found) < limit:
                break
        return fired

    async def keep_time(self, every_s: float = limits.DUE_POLL_S) -> None:
        """Let time-outs happen when they are due, until cancelled. A server does; any number of processes may.

        Args:
            every_s: Seconds between two looks at what is due.
        """
        while True:
            fired: list[Step] = []
            try:
                fired = await self.fire_due()
            except Exception:  # noqa: BLE001 - the database may be away for a while
                _log.exception("time-outs could not be looked for")
            if len(fired) < limits.DUE_SESSIONS:
                await asyncio.sleep(every_s)

    # -- who wants to know -----------------------------------------------------------------------------------------

    async def steps(self, session_id: str, *, after: int = 0, limit: int = limits.PAGE_DEFAULT) -> list[Step]:
        """Return what happened in a dialog after a version, in order, at most `limit` (up to `limits.PAGE`)."""
        return await self._database.read(history.steps, session_id, after, page_limit(limit))

    async def subscribe(self, session_id: str, *, after: int = 0) -> AsyncGenerator[Step]:
        """Yield what happens in a session's dialog after a version, as it happens, whichever process does it.

        What was read is rows: who comes back later with the last version that it heard misses nothing. Ends with
        SessionNotFoundError when the session goes.
        """
        with self._listeners.to(session_id) as ear:
            while True:
                ear.forget()
                found = await self.steps(session_id, after=after, limit=limits.PAGE)
                for step in found:
                    yield step
                    after = step.version
                if not found:
                    await ear.wait()

    async def timeouts(
        self, *, app: str | None = None, tenant: str = "default", follow: bool = True
    ) -> AsyncGenerator[Step]:
        """Yield time-outs of all sessions as they happen, so that somebody can tell the users.

        Each is for one listener, however many there are in however many processes. It counts as told when the listener
        asks for the next one; of a listener that dies before, another one gets it after `limits.TOLD_LEASE_S`. Those
        that happened while nobody listened come first, if they are not older than `limits.TOLD_AGE_S`.

        Args:
            app: Only sessions of this app; None for any.
            tenant: Whose.
            follow: Whether to wait for those that are still to come.
        """
        with self._listeners.to_timeouts() as ear:
            while True:
                ear.forget()
                found = await self._database.write(
                    history.take_untold, tenant, app, limits.TOLD_LEASE_S, limits.TOLD_AGE_S, 1
                )
                for step in found:
                    yield step
                    await self._database.write(history.told, step.session_id, step.version)
                if not found and not follow:
                    return
                if not found:
                    await ear.wait()


def _request(
    session_id: str, key: str | None, what: str, slots: Mapping[str, Json], said: Sequence[Stored], expected: int | None
) -> Once | None:
    if key is None:
        return None
    return once(f"dialog:{session_id}", key, _encode((what, rules.encoded(slots), said, expected)))


def _too_fast(session_id: str) -> ConflictError:
    return ConflictError(
        f"the dialog of session {session_id} timed out again meanwhile", remedy="try again", session_id=session_id
    )
