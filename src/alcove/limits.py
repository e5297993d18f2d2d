"""Every limit, with its unit and its reason. Past one, an error names it (`InvalidError.limit`)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Units, in bytes.
KIB: Final = 1024
MIB: Final = 1024 * KIB

# Names that callers choose (keys, users, apps, metadata names): long enough for a URL-shaped user id, short
# enough for an index entry.
ID_CHARS: Final = 256
TITLE_CHARS: Final = 512

# Sessions.
METADATA_BYTES: Final = 64 * KIB  # as JSON; it is read with every session, so it must stay small
METADATA_INDEXED_BYTES: Final = 256  # a longer value is kept, but cannot be filtered by
METADATA_NAMES: Final = 64  # each top-level scalar is an index row
DEPTH: Final = 32  # levels below a root; deeper trees are runaway agents
CHILDREN: Final = 10_000  # direct children of one session
TREE_SESSIONS: Final = 1000  # sessions of one subtree in one answer, and trashed in one transaction
TTL_S: Final = 10 * 365 * 86400  # ten years; "never" is no TTL at all
LIVE_RETRIES: Final = 8  # two workers race for one user's session: one wins, the others look again

# Messages.
MESSAGE_BYTES: Final = MIB  # one message as stored, UTF-8 (tool outputs go to files beyond that)
APPEND_MESSAGES: Final = 256  # drafts in one append: one transaction touches a bounded number of rows
IDEMPOTENCY_KEY_CHARS: Final = 256
PAGE: Final = 200  # rows in one page of a listing
PAGE_DEFAULT: Final = 50
MESSAGE_PAGE: Final = 1000  # messages are read in larger steps than sessions are listed
MESSAGE_PAGE_BYTES: Final = 32 * MIB  # a page of messages ends early when its text passes this
WINDOW_ROUNDS: Final = 1000
PAGE_ROUNDS: Final = 10  # of a window for which no bound is given
WINDOW_MESSAGES: Final = 10_000  # looked at for one window: a session in which no user speaks has no rounds to find
POP_MESSAGES: Final = 100
WINDOW_KEPT: Final = 1000  # system, pinned, summary and repair messages that are read for every window
WINDOW_TOKENS: Final = 10_000_000  # the largest model's context, several times over
MEND_MESSAGES: Final = 500  # of whole rounds, checked or repaired in one step
MEND_ATTEMPTS: Final = 8  # a step of a repair whose session moved on is looked at again this often
PINNED_MESSAGES: Final = 32  # of one session: each goes into every window
COMPACT_MESSAGES: Final = 10_000  # that one summary may stand for: all of them are read for it

# Objects: what is too large for a row, by its hash.
PART_BYTES: Final = 64 * KIB  # a part of a message from which on it is an object: rows stay small enough to read many
OBJECT_BYTES: Final = 32 * MIB  # one object
MESSAGE_OBJECT_BYTES: Final = 48 * MIB  # a message with its objects: a few images of 10 MB
OBJECT_GRACE_S: Final = 3600  # an object that nothing refers to stays this long: its message may be on its way
OBJECT_TEMP_S: Final = 86400  # a temporary file this old is of a writer that died
OBJECT_ATTEMPTS: Final = 8  # an object collected between its writing and its message is written again this often
OBJECT_SWEEP: Final = 1000  # objects that one transaction of a collection removes

# Dialogs.
DIALOG_BYTES: Final = 256 * KIB  # one definition; a larger one is generated, and no person could draw it
DIALOG_STATES: Final = 200
DIALOG_EVENTS: Final = 200
DIALOG_SLOTS: Final = 100
DIALOG_TRANSITIONS: Final = 10_000  # those that hold in every state count in each: each becomes one there
DIALOG_HINTS: Final = 20  # unknown names that are compared with the known ones, to guess which was meant
SLOT_NUMBER: Final = 2**63  # a number of a slot is smaller than this, so that every program can read it
DIALOG_NAME_CHARS: Final = 64  # names of states, slots and events: the state stands in the session's head
DIALOG_MESSAGE_BYTES: Final = 4 * KIB  # what a time-out tells the user
DIALOG_VERSIONS: Final = 200  # of one definition: each new one is compared with all
DIALOGS_KNOWN: Final = 500  # definitions that a process remembers decoded
DIALOG_FAULTS: Final = 10  # faults named in one error
SLOTS_BYTES: Final = 64 * KIB  # all slots of a session as JSON: each step writes them
SLOT_PATTERN_CHARS: Final = 256  # a text that is matched: a regex may take n^3 steps
DUE_SESSIONS: Final = 100  # time-outs that one call of `fire_due` lets happen
DUE_POLL_S: Final = 1  # how much later than declared a time-out happens that nobody's access brings about
TOLD_LEASE_S: Final = 60  # whoever took a time-out and did not say that it is told is taken for gone after this
TOLD_AGE_S: Final = 24 * 3600  # older time-outs are news to nobody
EXPECTED_STEPS: Final = 2  # tries of a step: one that hopes to be alone, one that has locked the session

# Search.
SEARCH_QUERY_CHARS: Final = 256
SEARCH_TERMS: Final = 16  # words and phrases of one query
SEARCH_HITS: Final = 50  # of one answer
SEARCH_CANDIDATES: Final = 200  # newest places that have every term, looked at for one answer
SEARCH_CANDIDATE_CHARS: Final = 4 * MIB  # of text, looked at for one answer
SEARCH_TEXT_CHARS: Final = 64 * KIB  # of one message that are indexed; PostgreSQL takes 1 MiB of words for one place
SEARCH_PLACE_MESSAGES: Final = 32  # messages that are found together, and then looked at one by one
SEARCH_TOKEN_CHARS: Final = 64  # of a word: longer ones are no words
SEARCH_BATCH_SESSIONS: Final = 256  # that one step of the indexing reads, in some milliseconds of the event loop
SEARCH_BATCH_MESSAGES: Final = (
    2048  # each commit of the index is a part of it, to be merged: a few large ones cost half
)
SEARCH_BATCH_CHARS: Final = MIB
SEARCH_SNIPPET_CHARS: Final = 160
SEARCH_POLL_S: Final = 0.5  # how far the index may be behind a session that was left alone
SEARCH_PATIENCE_S: Final = 0.25  # how long a search waits for the index to catch up before it answers

# Files.
PATH_BYTES: Final = 4095  # Linux PATH_MAX, less its NUL
NAME_BYTES: Final = 255  # Linux NAME_MAX
FILE_BYTES: Final = 64 * MIB  # one file written or read whole, in memory
UPLOAD_BYTES: Final = 4096 * MIB  # one file that is streamed in; larger ones are better made by a run
DESCRIPTORS: Final = 65_536  # a server takes so many where it may; the usual 1024 are 200 uploads
UPLOADS: Final = 128  # files and archives on their way into one process at once; each takes five descriptors ...
SESSION_UPLOADS: Final = 16  # ... and those of one session, so that nobody takes all of them with one
ARCHIVE_BYTES: Final = 16 * 1024 * MIB  # one archive unpacked, in or out: a large project with its dependencies
ARCHIVE_NAMES: Final = 100_000  # names in one archive, as many as a listing shows
ARCHIVE_HEADER_BYTES: Final = 64 * KIB  # one extended header of an archive: a path has 4 KiB
ARCHIVE_RATIO: Final = 200  # how much larger an archive may become unpacked; text reaches 20, zeros 1000
ARCHIVE_RATIO_FREE_BYTES: Final = 64 * MIB  # before that ratio counts: small ones harm nobody
SKIPPED_NAMES: Final = 100  # members left out of an extraction that are told by name
LISTING_FILES: Final = 100_000  # one recursive listing; the contract has no pages
WATCHES: Final = 100  # sessions whose files are watched at once in one process: each costs listings
WATCH_S: Final = 0.5  # how often a watched workspace is looked at; less often when listings take longer than 25 ms
WATCH_EVENTS: Final = 256  # changes that a watch keeps for listeners that lost their connection ...
WATCH_LINGER_S: Final = 60  # ... and for how long after the last one left
TREE_DEPTH: Final = 256  # folders below the workspace that a listing descends
USAGE_NAMES: Final = 2_000_000  # one count of a workspace: eight seconds; more files than any quota allows
REMOVE_NAMES: Final = 10_000_000  # one removal: minutes; a larger tree takes another call, a live writer is found out
REMOVE_AGAIN_NAMES: Final = 20_000  # names that came after a removal went by: more are a live writer's
REMOVE_PASSES: Final = 20  # a removed tree that fills again this often has a live writer

# Imports.
IMPORT_FILE_BYTES: Final = 256 * MIB  # one session file of another program, read whole; its history is ours in pieces
ARCHIVE_SESSIONS: Final = 30_000  # sessions in one archive: what is known of each is in memory
ARCHIVE_MEMBERS: Final = 300_000  # members of one archive: where each large part lies is in memory, 200 bytes each
ARCHIVE_MESSAGE_BYTES: Final = 4 * MESSAGE_OBJECT_BYTES  # one message with its objects, as often as it shows each
ARCHIVE_LINE_BYTES: Final = 16 * MIB  # one message as JSON; what is a control character takes six bytes

# Runs.
CHAT_BYTES: Final = MIB  # one message to an agent
ARGUMENT_BYTES: Final = 100 * KIB  # a message given after `--`: Linux allows 128 KiB for one argument
SECRET_CHARS: Final = 8  # of a value at least: hiding a shorter one would garble what programs say
SECRET_BYTES: Final = 8 * KIB  # of a value at most: a signed token with many claims
ANSWER_BYTES: Final = MIB  # what is kept of an answer as a message; the journal keeps more
PROMPT_BYTES: Final = 2 * MIB  # what a program is given: the message, an instruction and as much history as fits
LANGUAGE_CHARS: Final = 64  # the name of a language
PATTERN_LINE_CHARS: Final = 2 * KIB  # longer lines are not matched: noise is short, and a regex may take n^3 steps
PATTERN_BUDGET_S: Final = 1  # CPU time for all patterns on one answer; what is left then stays as it is
CHECK_TIMEOUT_S: Final = 15  # an availability check (`q --version`)
RUN_TIMEOUT_S: Final = 600  # default wall time of a run
RUN_TIMEOUT_S_MAX: Final = 24 * 3600
STALE_S: Final = 3600  # a hosted run not heard of for this long is lost, when its host does not say otherwise
STALE_S_MAX: Final = 30 * 86400  # longer, and nobody remembers what it was
LEASE_S: Final = 15  # a writer not heard of for this long has lost its session
LEASE_RENEW_S: Final = 5
QUEUE_MESSAGES: Final = 32  # that wait in one session: more, and whoever sends them does not hear the answers
QUEUE_ADOPTED_S: Final = 3600  # a queued run whose agent nobody knows fails after this; until then others may come back
STEERING_MESSAGES: Final = 100  # that wait for one run
JOURNAL_HEAD_BYTES: Final = 8 * MIB  # the first output of a run ...
JOURNAL_TAIL_BYTES: Final = 8 * MIB  # ... and the last; what lies between is a gap
EVENT_BYTES: Final = 64 * KIB  # one output event
EVENT_PAGE: Final = 500

# What one run's processes may use, as the kernel counts it for a process or a uid.
RUN_OPEN_FILES: Final = 4096  # per process; build tools need a thousand
RUN_PROCESSES: Final = 1024  # processes and threads, where the kernel counts them per run: `userns` and leased uids
RUN_FILE_BYTES: Final = 16 * 1024 * MIB  # one file; stops a runaway log
RUN_MEMORY_BYTES: Final = 4096 * MIB  # of a run's whole tree; a build of a large program takes two
RUN_CPU_S: Final = 7200  # of a run's whole tree: twelve processors for the default wall time
RUN_OUTPUT_BYTES: Final = 1024 * MIB  # said by a run; the journal keeps 16 MiB of it, so more is a runaway program
RUN_DISK_BYTES: Final = 10 * 1024 * MIB  # a workspace: a large project with its dependencies, twice
RUN_DISK_FILES: Final = 1_000_000  # files of one: half of what is counted at most (USAGE_NAMES)
RUN_DISK_FREE_BYTES: Final = 512 * MIB  # less than this on the disk, and the run that grows most is ended
RUN_DISK_SLACK_BYTES: Final = 4 * MIB  # that a run may add to a workspace that is over its limit: it may tidy up
RUN_LIMIT: Final = 2**50  # of any limit of a run: more is none at all
GUARD_S: Final = 0.2  # between two looks at what runs take: a disk takes half a gigabyte meanwhile
GUARD_SHARE: Final = 0.1  # of one processor at most that counting the files of all runs takes
GUARD_DESCRIPTORS: Final = 20_000  # of one run that are looked at for files without a name
RUN_TMP_BYTES: Final = 512 * MIB  # a private /tmp, which is memory; on `userns` with /dev/shm
RUN_SHM_BYTES: Final = 256 * MIB  # a private /dev/shm of its own, on `bwrap`

# Grants.
GRANT_BYTES: Final = 8 * MIB  # canonical JSON: 100,000 resources with long ids; more is a type of its own, not a list
GRANT_OPERATIONS: Final = 64  # of one resource
GRANT_PATHS: Final = 256  # paths of one kind, and hosts: each path is a mount or a rule of the kernel
LABELS: Final = 64  # of a run, and facts in the context of its state
LABEL_CHARS: Final = 1024  # the value of one
CUT_ITEMS: Final = 50  # rights named of those that one bound cut off; the rest is counted
RUN_DEPTH: Final = 32  # runs above one: each is looked at when a decision is made anew
RUN_TREE: Final = 10_000  # runs of one tree that are looked through when a grant is withdrawn
GRANTS_KNOWN: Final = 10_000  # runs whose rights are in memory; the one that came first is looked up anew
GRANTS_KNOWN_RESOURCES: Final = 1_000_000  # of them all together: about 200 MB
CHECKS: Final = 1000  # decisions in one request
REASON_CHARS: Final = 1024  # why a grant was revoked or narrowed, or a request answered so

# Approvals.
STATE_BYTES: Final = 64 * KIB  # of one value as JSON: what is larger is a file of the workspace
STATE_KEYS: Final = 1000  # of one session, user, subject, agent, app or run: counted at each new one
STATE_PAGE: Final = 100  # of a listing: 6.25 MiB of values
APPROVAL_S: Final = 3600  # how long a run waits for a person, when it does not say otherwise; then it is a no
APPROVAL_S_MAX: Final = 7 * 86400  # a run holds its session meanwhile
APPROVAL_BYTES: Final = 64 * KIB  # arguments as JSON: a person has to read them
APPROVAL_MESSAGE_CHARS: Final = 4 * KIB
APPROVALS_WAITING: Final = 16  # open requests of one run
APPROVALS: Final = 1000  # requests of one run at all: more is a loop, and nobody reads them
APPROVAL_WAIT_S: Final = 60  # one wait for an answer over HTTP: proxies cut longer ones

# Audit.
AUDIT_BATCH: Final = 200  # rows that one transaction writes or erases: 5 ms, so that it delays nobody for long
AUDIT_FLUSH_S: Final = 0.1  # how long denials are gathered before they are written: what a crash may take at most
AUDIT_RETRY_S: Final = 1  # how soon it is tried again to write them, when that failed
AUDIT_WINDOW_S: Final = 60  # the same denial is one row in this time, with its number
AUDIT_DISTINCT: Final = 4096  # kinds of denials told apart in that time: 4 MiB, and a day of them is 6 million rows
AUDIT_DISTINCT_OF_SUBJECT: Final = (
    64  # of one run or session: one that is denied so much is told, not each of its tries
)
AUDIT_WORD_CHARS: Final = 1024  # of one word; a path may be longer, and its beginning tells
AUDIT_WORDS_CHARS: Final = 8 * KIB  # of a row: what a person reads, no documents
AUDIT_ROWS: Final = 10_000_000  # of one node: 10 GB, or 300,000 runs a day for a month; older ones are removed
AUDIT_DAYS: Final = 400  # a year and a month: what is audited yearly is still there
AUDIT_REMOVED: Final = 500  # rows that one transaction of a removal takes: 8 ms
AUDIT_PAGE: Final = 500  # rows read with one statement
AUDIT_LOOKED_AT: Final = 2000  # rows looked at for one page when nearly none fits: 25 ms
AUDIT_NODES: Final = 10_000  # chains that are verified: each machine, and each key that was lost, has one
AUDIT_FINDINGS: Final = 100  # told by one verification; the first is what matters
AUDIT_CHECKPOINT_S: Final = 1  # how often the checkpoint beside the database is written anew

# Keys.
KEY_RATE: Final = 1_000_000  # requests a second that may be asked for: more than any server answers
USER_KEY_RATE: Final = 50  # of a user's key by default: no person is faster, and no script of one takes all
KEY_BURST_S: Final = 2  # seconds' worth of requests that may come at once
OIDC_TOKEN_BYTES: Final = 8 * KIB  # of a provider's token: as much as fits into a header of most servers
OIDC_LEEWAY_S: Final = 60  # by which the clocks of a provider and of this machine may differ
OIDC_KNOWN_S: Final = 60  # that a token is taken again without a look at its signature
OIDC_KEYS_S: Final = 3600  # after which a provider's keys are fetched anew, so that a withdrawn one is forgotten
OIDC_REFETCH_S: Final = 30  # between two fetches, however many tokens come with a key that is unknown
OIDC_FETCH_S: Final = 20  # that one fetch of the keys may take: a request waits for it
OIDC_AWAY_S: Final = 24 * 3600  # without word from a provider its keys are known for this long
OIDC_KEYS_BYTES: Final = MIB  # of a provider's keys
KEYS_KNOWN: Final = 10_000  # keys in memory; the one that has been there for longest is looked up anew
DECISION_S: Final = 1.0  # how long what the database said about a key or a grant holds; then it is asked again

# Server.
BODY_BYTES: Final = 32 * MIB  # a JSON body: an image of 10 MB is 13 as base64; files have FILE_BYTES
JSON_DEPTH: Final = 64
BODY_TIMEOUT_S: Final = 30
UPLOAD_BYTES_PER_S: Final = 4 * KIB  # an upload that is slower on average is somebody who wants to hold a place
DRAIN_S: Final = 6  # how long a stopping server waits for runs before it cancels them; containers are killed after 10
SSE_HEARTBEAT_S: Final = 15
LAST_ANSWERS_S: Final = 5  # how long it then waits for answers to be taken, before it hangs up
SSE_RETRY_MS: Final = 2000  # how long a browser waits before it opens a broken stream again
HEAD_BYTES: Final = 64 * KIB  # request line and headers; longer ones are no browser's
KEEP_ALIVE_S: Final = 5  # how long an idle connection is kept for a next request
LINGER_S: Final = 2  # how long a refused body is still taken, so that its sender hears why
SEND_BYTES: Final = 256 * KIB  # one piece of a download
DISK_FREE_BYTES: Final = 64 * MIB  # less than this on a disk of ours, and the server says that it is not ready
REQUEST_ID_CHARS: Final = 128

# Database.
LOOK_S: Final = 1  # a read for which a thread waits: whoever asks has to answer somebody
GROUP_COMMIT_OPERATIONS: Final = 128  # operations in one commit: past this latency grows and throughput does not
WRITE_QUEUE: Final = 10_000  # operations waiting for the writer; more are refused, so that memory is bounded
BUSY_TIMEOUT_S: Final = 30
CONNECT_TIMEOUT_S: Final = 10  # to reach PostgreSQL at start; a wrong address should not take longer to show
POSTGRES_CONNECTIONS: Final = 10  # of one process; PostgreSQL allows 100 in all by default
TRANSACTION_ATTEMPTS: Final = 8  # a transaction that PostgreSQL ended for another one's sake goes again this often

# Configuration.
CONFIG_BYTES: Final = MIB  # alcove.toml; a larger one is something else
INLINE_COMMIT_S: Final = 0.001  # a lone operation runs in the event loop while commits take less than this on average
CHECKPOINT_PAGES: Final = 4000  # 16 MiB of write-ahead log: rarer checkpoints copy a page once for many commits
LOG_SMALL_PAGES: Final = (
    16  # of a commit whose flush costs little more than what the file system adds when the log grows
)
LOG_ROOM_PAGES: Final = 64  # by which the log grows ahead: a quarter of a mebibyte at once delays nobody
EVENT_POLL_S: Final = 0.5  # how late a listener may notice an event that another process wrote
UIDS_SPARE: Final = 64  # of an installation, for probes and checks: so many processes may probe one base at a time
UIDS_MIN: Final = 2000  # a root server leases one uid per session; fewer would run out in an afternoon
JOURNAL_BUFFER_BYTES: Final = MIB  # output of a run that is not yet durable; past it, the program's pipe fills up
EMIT_BYTES: Final = JOURNAL_HEAD_BYTES + JOURNAL_TAIL_BYTES  # said by a function and unwritten: no more is ever kept
EMIT_AHEAD_BYTES: Final = 64 * KIB  # said by a function's threads until one waits for the event loop to take it
CHANGED_FILES: Final = 1000  # paths in one `files` event
COMPARED_FILES: Final = 10_000  # files of a workspace up to which a run's changes are listed (24 ms on our machine)
RECONCILE_S: Final = 10  # how long what a dead server left is killed again and again before it is reported
KILL_GRACE_S: Final = 2.0  # between SIGTERM to a program that is to end and SIGKILL to its whole tree
RUN_ERROR_BYTES: Final = 4 * KIB  # why a run failed, as it is kept and streamed; the server's log has all of it
PURGE_ROWS: Final = 1000  # rows that one transaction of a purge removes, so that it delays nobody for long
PREFIX_SESSIONS: Final = 5  # sessions named when the beginning of an id fits several
TURN_S: Final = 0.005  # how often a writer that waits for its turn looks whether it is to flush for the one before
PROXY_HEAD_BYTES: Final = 16 * KIB  # what a run says to its proxy before that knows where to; browsers send 8 KiB
PROXY_HEAD_S: Final = 10  # until it has said that
PROXY_CONNECTIONS: Final = 64  # of one run through its proxy at once: each takes two descriptors of the server
PROXY_BUFFER_BYTES: Final = 256 * KIB  # one way of one connection, past which the faster side has to wait
PROXY_LOOKUPS: Final = 16  # names that are looked up at once, each by a thread
PROXY_LOOKUPS_OF_RUN: Final = 4  # of them for one run: a slow name server must not be everybody's
PROXY_ADDRESSES: Final = 4  # of one name that are tried
PROXY_CONNECT_S: Final = 12  # to look a name up and connect; a quarter of it for each address
PROXY_IDLE_S: Final = 600  # a connection on which nothing passes: models think for minutes
PROXY_LINGER_S: Final = 2  # a client that is refused gets so long to read why
PROXY_TOLD: Final = 100  # refused destinations of one run that are told: a scan would fill the log
RUN_CONNECTIONS: Final = 32  # of one run to its socket at once: a run must not take the descriptors of the server

# The end of sessions.
CLAIM_S: Final = 300  # a call that moves, restores or purges and was not heard of for this long is taken for dead
RESTORED_S: Final = 86400  # what a session past its end gets when it is restored: a day to give it another

# Sweeps.
SWEEP_S: Final = 60  # between two sweeps of a server: an expired session takes no activity anyway
SWEEP_AGAIN_S: Final = 300  # until an expired session is looked at again that something else keeps here
SWEEP_PAGE: Final = 1000  # sessions that a sweep looks at with one statement
SWEEP_SESSIONS: Final = 64  # sessions that one transaction of a sweep moves: more would delay who waits behind it
SWEEP_PAUSE_S: Final = 0.008  # between two of them, for everybody else: a sweep is never in a hurry
SWEEP_PURGES: Final = 8  # trashings that are purged at a time
UNUSED_S: Final = 3600  # how old what is empty or a stray has to be: nobody is about to use it
CLEANED: Final = 1000  # groups or paths that one answer names; they are counted in full
KNOWN: Final = 500  # names that are looked up with one statement
JOURNAL_DAYS: Final = 7  # how long a run's output is kept whole
LEDGER_DAYS: Final = 400  # how long a run that belongs to no session stays in the ledger
JUMP_S: Final = 60  # a clock that is off by more than this has jumped; time servers put less right every day
DISK_LOW_BYTES: Final = 1024 * MIB  # less than this on a disk of ours is worth a warning ...
DISK_LOW: Final = 0.05  # ... and so is this part of it
