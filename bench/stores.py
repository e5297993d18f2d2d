"""The stores that are compared, behind one small interface. A turn is a user and an assistant message."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Message = tuple[str, str]


class Store:
    """One store in a folder of its own; opening must work on an empty folder and on a filled one."""

    name = ""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "store.db")

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass

    async def durability(self) -> str:
        raise NotImplementedError

    async def session(self, user: str, sid: str) -> Any:
        """Make the session where it is missing and return what appends and reads take."""
        raise NotImplementedError

    async def append(self, handle: Any, said: str, reply: str) -> None:
        raise NotImplementedError

    async def last(self, handle: Any, n: int) -> list[Message]:
        raise NotImplementedError

    async def sessions_of(self, user: str) -> list[str]:
        raise NotImplementedError

    def fill(self, sessions: Iterable[tuple[str, str, int]], message: str) -> None:
        """Write sessions of (user, id, number of messages) straight into the tables; not timed."""
        raise NotImplementedError


def sqlite_durability(connection: sqlite3.Connection) -> str:
    [journal] = connection.execute("PRAGMA journal_mode").fetchone()
    [synchronous] = connection.execute("PRAGMA synchronous").fetchone()
    return f"sqlite {sqlite3.sqlite_version} journal_mode={journal} synchronous={synchronous} (2 is FULL)"


class Raw(Store):
    """`sqlite3`, WAL, FULL, one commit per turn, in the thread of the event loop."""

    name = "raw"
    INSERT = "INSERT INTO messages (session, role, body) VALUES (?, 'user', ?), (?, 'assistant', ?)"

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=60)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    async def open(self) -> None:
        self.db = self.connect()
        self.db.executescript(
            """CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, user TEXT NOT NULL) WITHOUT ROWID;
            CREATE INDEX IF NOT EXISTS by_user ON sessions (user);
            CREATE TABLE IF NOT EXISTS messages (
                id INTEGER PRIMARY KEY, session TEXT NOT NULL, role TEXT NOT NULL, body TEXT NOT NULL);
            CREATE INDEX IF NOT EXISTS by_session ON messages (session, id);"""
        )

    async def close(self) -> None:
        self.db.close()

    async def durability(self) -> str:
        return sqlite_durability(self.db)

    async def session(self, user: str, sid: str) -> str:
        self.db.execute("INSERT OR IGNORE INTO sessions VALUES (?, ?)", (sid, user))
        return sid

    async def append(self, handle: str, said: str, reply: str) -> None:
        self.db.execute(self.INSERT, (handle, said, handle, reply))

    async def last(self, handle: str, n: int) -> list[Message]:
        rows = self.db.execute(
            "SELECT role, body FROM messages WHERE session = ? ORDER BY id DESC LIMIT ?", (handle, n)
        ).fetchall()
        return rows[::-1]

    async def sessions_of(self, user: str) -> list[str]:
        return [row[0] for row in self.db.execute("SELECT id FROM sessions WHERE user = ?", (user,))]

    def fill(self, sessions: Iterable[tuple[str, str, int]], message: str) -> None:
        with sqlite3.connect(self.path) as db:
            for user, sid, count in sessions:
                db.execute("INSERT INTO sessions VALUES (?, ?)", (sid, user))
                db.executemany(
                    "INSERT INTO messages (session, role, body) VALUES (?, ?, ?)",
                    ((sid, ("user", "assistant")[i % 2], message) for i in range(count)),
                )


class RawGroup(Raw):
    """One writer thread; turns that wait while it is busy share a commit, 64 at most."""

    name = "raw-group"

    async def open(self) -> None:
        await super().open()
        self.turns: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    async def close(self) -> None:
        self.turns.put(None)
        self.thread.join()
        await super().close()

    async def append(self, handle: str, said: str, reply: str) -> None:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self.turns.put(((handle, said, handle, reply), loop, done))
        await done

    def _write(self) -> None:
        db = self.connect()
        while (turn := self.turns.get()) is not None:
            group = [turn]
            while len(group) < 64 and not self.turns.empty() and (turn := self.turns.get()) is not None:
                group.append(turn)
            db.execute("BEGIN IMMEDIATE")
            db.executemany(self.INSERT, [values for values, _, _ in group])
            db.execute("COMMIT")
            group[0][1].call_soon_threadsafe(_resolve, [done for _, _, done in group])
            if turn is None:
                break
        db.close()


def _resolve(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


class OpenAI(Store):
    """openai-agents' SQLiteSession, as its documentation uses it."""

    name = "openai"

    async def open(self) -> None:
        from agents.memory import SQLiteSession

        self.kind = SQLiteSession

    async def durability(self) -> str:
        session = self.kind("durability", self.path)
        return sqlite_durability(session._get_connection())

    async def session(self, user: str, sid: str) -> Any:
        return self.kind(sid, self.path)

    async def append(self, handle: Any, said: str, reply: str) -> None:
        await handle.add_items([{"role": "user", "content": said}, {"role": "assistant", "content": reply}])

    async def last(self, handle: Any, n: int) -> list[Message]:
        return [(item["role"], item["content"]) for item in await handle.get_items(n)]

    def fill(self, sessions: Iterable[tuple[str, str, int]], message: str) -> None:
        import json

        self.kind("any", self.path).close()
        with sqlite3.connect(self.path) as db:
            for _, sid, count in sessions:
                db.execute("INSERT INTO agent_sessions (session_id) VALUES (?)", (sid,))
                items = [json.dumps({"role": role, "content": message}) for role in ("user", "assistant")]
                db.executemany(
                    "INSERT INTO agent_messages (session_id, message_data) VALUES (?, ?)",
                    ((sid, items[i % 2]) for i in range(count)),
                )


class Ours(Store):
    """Alcove's library: every turn with its listing indexes, turn row and head."""

    name = "alcove"
    keyed = False

    async def open(self) -> None:
        from alcove.database.opening import open_database
        from alcove.messages.service import Messages
        from alcove.sessions.service import Sessions

        self.db = await open_database(f"sqlite:///{self.path}")
        self.sessions, self.messages = Sessions(self.db), Messages(self.db)
        self.keys = 0
        self.plain: sqlite3.Connection | None = None

    async def close(self) -> None:
        if self.plain is not None:
            self.plain.close()
        await self.db.close()

    async def durability(self) -> str:
        return await self.db.durability()

    async def session(self, user: str, sid: str) -> str:
        from alcove.errors import AlreadyExistsError

        try:
            await self.sessions.create(session_id=sid, user_id=user)
        except AlreadyExistsError:
            return sid
        return sid

    async def append(self, handle: str, said: str, reply: str) -> None:
        self.keys += 1
        key = f"request-{self.keys}" if self.keyed else None
        await self.messages.append_turn(handle, said, reply, idempotency_key=key)

    async def last(self, handle: str, n: int) -> list[Message]:
        return [(message.role, message.text) for message in await self.messages.last(handle, n)]

    async def sessions_of(self, user: str) -> list[str]:
        return (await self.sessions.ids_of(user))[0]

    async def records_of(self, user: str) -> int:
        """List a user's sessions as records, and return how many there are."""
        return len((await self.sessions.list(user_id=user)).sessions)

    def raw_records_of(self, user: str) -> int:
        """The same rows by plain `sqlite3`: what every such listing has to fetch, whoever asks."""
        if self.plain is None:
            self.plain = sqlite3.connect(self.path)
        rows = self.plain.execute(
            "SELECT s.*, h.* FROM sessions s JOIN heads h ON h.session_id = s.id "
            "WHERE s.tenant = 'default' AND s.user_id = ? ORDER BY s.created_at DESC, s.id DESC LIMIT 50",
            (user,),
        )
        return len(rows.fetchall())

    def fill(self, sessions: Iterable[tuple[str, str, int]], message: str) -> None:
        with sqlite3.connect(self.path) as db:
            for at, (user, sid, count) in enumerate(sessions):
                db.execute(
                    "INSERT INTO sessions (id, tenant, app, user_id, key, parent_id, root_id, depth, title, agent, "
                    "metadata, pinned, ttl, version, created_at, trash_id, trashed_at) VALUES "
                    "(?, 'default', '', ?, NULL, '', ?, 0, '', '', '{}', 0, 0, 1, ?, '', 0)",
                    (sid, user, sid, at),
                )
                db.execute(
                    "INSERT INTO heads (session_id, last_seq, cleared_seq, message_count, turn_count, child_count, "
                    "last_activity, idle_limit, trashed, epoch, lease_run, lease_until) "
                    "VALUES (?, ?, 0, ?, ?, 0, ?, 0, 0, 0, '', 0)",
                    (sid, count, count, (count + 1) // 2, at),
                )
                db.executemany(
                    "INSERT INTO turns (session_id, number, status, run_id, opened_at, closed_at) "
                    "VALUES (?, ?, 'done', '', 0, 0)",
                    ((sid, i + 1) for i in range((count + 1) // 2)),
                )
                db.executemany(
                    "INSERT INTO messages (session_id, seq, turn, role, format, content, detail, hidden, created_at) "
                    "VALUES (?, ?, ?, ?, 0, ?, '', 0, 0)",
                    ((sid, i + 1, i // 2 + 1, ("user", "assistant")[i % 2], message) for i in range(count)),
                )


class OursKeyed(Ours):
    """The same, each turn with an idempotency key."""

    name = "alcove-keyed"
    keyed = True


class OursBlocking(Store):
    """The same through `alcove.sync`: a thread without a loop waits for the hub's. The measuring loop stands still."""

    name = "alcove-sync"

    async def open(self) -> None:
        import alcove.sync

        self.hub = alcove.sync.open(f"sqlite:///{self.path}")

    async def close(self) -> None:
        self.hub.close()

    async def durability(self) -> str:
        return "as alcove"

    async def session(self, user: str, sid: str) -> Any:
        return self.hub.sessions.create(session_id=sid, user_id=user)

    async def append(self, handle: Any, said: str, reply: str) -> None:
        handle.append_turn(said, reply)

    async def last(self, handle: Any, n: int) -> list[Message]:
        return [(message.role, message.text) for message in handle.last(n)]


STORES: dict[str, type[Store]] = {store.name: store for store in (Raw, RawGroup, OpenAI, Ours, OursKeyed, OursBlocking)}
