"""What `/metrics` shows, in the text form of Prometheus. Imported by the server only."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Final, final

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600)

GAUGES: Final[dict[str, str]] = {
    "alcove_runs_live": "Runs that this process looks after.",
    "alcove_sessions": "Sessions outside the trash.",
    "alcove_workspaces": "Workspaces.",
    "alcove_workspace_files": "Files in all workspaces, as last measured.",
    "alcove_workspace_bytes": "Bytes that all workspaces take on the disk, as last measured.",
    "alcove_database_waiting": "Operations that wait for the database.",
    "alcove_audit_waiting": "Rows on denials that wait to be written.",
    "alcove_audit_failing": "1 while denials cannot be written.",
}


@final
class Metrics(Collector):
    """The figures of one server process.

    Counting is a few additions; what Prometheus wants to read is made of them when it asks.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], int] = defaultdict(int)
        self._took: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS_S) + 1))
        self._took_s: dict[str, float] = defaultdict(float)
        self._events = 0
        self._streams = 0
        self._gauges: Mapping[str, float] = {}

    def request(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count a request by the route that it matched, never by its path: that would grow without bound."""
        self._requests[method, route, status] += 1
        self._took[route][bisect_left(_BUCKETS_S, took_s)] += 1
        self._took_s[route] += took_s

    def stream_opened(self) -> None:
        """Count a listener that came."""
        self._streams += 1

    def stream_closed(self, sent: int) -> None:
        """Count a listener that went, and the events that it was sent."""
        self._streams -= 1
        self._events += sent

    def render(self, gauges: Mapping[str, float]) -> bytes:
        """Return the text, with these values of `GAUGES`."""
        self._gauges = gauges
        return generate_latest(self)

    def collect(self) -> Iterator[Metric]:
        """Yield the figures as prometheus-client wants them."""
        requests = CounterMetricFamily(
            "alcove_http_requests", "Requests answered.", labels=("method", "route", "status")
        )
        for (method, route, status), count in self._requests.items():
            requests.add_metric((method, route, str(status)), count)
        yield requests
        latency = HistogramMetricFamily(
            "alcove_http_request_seconds", "Time from a request's head to the end of its answer.", labels=("route",)
        )
        bounds = [*map(str, _BUCKETS_S), "+Inf"]
        for route, counts in self._took.items():
            buckets = list(zip(bounds, map(float, accumulate(counts)), strict=True))
            latency.add_metric((route,), buckets, self._took_s[route])
        yield latency
        yield CounterMetricFamily("alcove_stream_events", "Events sent to listeners that have left.", self._events)
        yield GaugeMetricFamily("alcove_streams_open", "Streams of events that are open.", self._streams)
        for name, value in self._gauges.items():
            yield GaugeMetricFamily(name, GAUGES[name], value)
