"""What `/metrics` shows, in the text form of Prometheus. Imported by the server only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

GAUGES: Final[dict[str, str]] = {
    "alcove_runs_live": "Runs that this process looks after.",
    "alcove_sessions": "Sessions outside the trash.",
    "alcove_workspaces": "Workspaces.",
    "alcove_workspace_files": "Files in all workspaces, as last measured.",
    "alcove_workspace_bytes": "Bytes that all workspaces take on the disk, as last measured.",
    "alcove_database_waiting": "Operations that wait for the database.",
}


@final
class Metrics:
    """The figures of one server process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "alcove_http_requests", "Requests answered.", ("method", "route", "status"), registry=self._registry
        )
        self._latency = Histogram(
            "alcove_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ("route",),
            buckets=_BUCKETS_S,
            registry=self._registry,
        )
        self._events = Counter("alcove_stream_events", "Events sent to listeners.", registry=self._registry)
        self._streams = Gauge("alcove_streams_open", "Streams of events that are open.", registry=self._registry)
        self._gauges = {name: Gauge(name, text, registry=self._registry) for name, text in GAUGES.items()}
        # Finding a child by its labels costs more than counting does.
        self._children: dict[tuple[str, str, int], Callable[[], None]] = {}
        self._observers: dict[str, Callable[[float], None]] = {}

    def request(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request by the route that it matched, never by its path: that would grow without bound."""
        key = (method, route, status)
        count = self._children.get(key)
        if count is None:
            # A method is the caller's own word.
            known = method if method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} else "other"
            count = self._requests.labels(known, route, str(status)).inc
            if known == method:
                self._children[key] = count
        count()
        observe = self._observers.get(route)
        if observe is None:
            observe = self._observers[route] = self._latency.labels(route).observe
        observe(took_s)

    def stream_opened(self) -> None:
        """Count a listener that came."""
        self._streams.inc()

    def stream_closed(self, sent: int) -> None:
        """Count a listener that went, and the events that it was sent."""
        self._streams.dec()
        self._events.inc(sent)

    def render(self, gauges: Mapping[str, float]) -> bytes:
        """Return the text, with these values of `GAUGES`."""
        for name, value in gauges.items():
            self._gauges[name].set(value)
        return generate_latest(self._registry)
