"""The table of routes: what is declared once routes, decodes, validates and describes."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeAlias, final, get_origin, get_type_hints
from urllib.parse import unquote_to_bytes

import msgspec

from alcove.errors import AlcoveError
from alcove.server.problems import MethodNotAllowedError, no_path
from alcove.workspaces.paths import decode

Found: TypeAlias = "tuple[Route, dict[str, str]]"
PUBLIC: Final = "public"


@final
class Route:
    """One method on one path.

    The handler is `async (call, [query], [body]) -> answer`: the annotations of `query` and `body` are the structs that
    the request is decoded into, the one of the answer is what the description shows. A struct is sent as JSON, None
    as no content, anything else sends itself. A path ends in `{name...}` to take slashes into a parameter.

    Args:
        method: In capitals; GET answers HEAD too.
        path: With `{name}` for parameters.
        handler: Its docstring becomes the description.
        permission: Who may call: `public`, or `noun.verb`.
        status: Of a success.
        others: Further statuses with the same answer.
        errors: What may go wrong, besides what may everywhere.
        run: Whether a run's socket may call it, for its own session.
        headers: Request headers that it reads, with what each does.
        upload: Whether it takes raw bytes as the body.
        media: Media type of an answer that is no struct.
    """

    def __init__(
        self,
        method: str,
        path: str,
        handler: Callable[..., Awaitable[object]],
        *,
        permission: str,
        status: int = 200,
        others: tuple[int, ...] = (),
        errors: tuple[type[AlcoveError], ...] = (),
        run: bool = False,
        headers: Mapping[str, str] | None = None,
        upload: bool = False,
        media: str = "",
    ) -> None:
        hints = get_type_hints(handler)
        self.method = method
        self.path = path
        self.handler = handler
        self.permission = permission
        self.public = permission == PUBLIC
        self.status = status
        self.others = others
        self.errors = errors
        self.run = run
        self.headers: Mapping[str, str] = headers or {}
        self.upload = upload
        self.media = media
        self.query: type[msgspec.Struct] | None = hints.get("query")
        self.body: type[msgspec.Struct] | None = hints.get("body")
        self.answer: type | None = hints.get("return")
        self.decode_body = msgspec.json.Decoder(self.body).decode if self.body else None
        self.body_optional = self.body is not None and all(
            not field.required for field in msgspec.structs.fields(self.body)
        )
        self.known = tuple(self._known())
        self.no_query = self._default_query()
        self.text = inspect.getdoc(handler) or ""

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters in the path."""
        return [part[1:-1].removesuffix("...") for part in self.path.split("/") if part.startswith("{")]

    def _known(self) -> Iterable[str]:
        """Yield the parameters of the query as a caller writes them: a mapping's with a name of theirs."""
        for field in msgspec.structs.fields(self.query) if self.query else ():
            yield f"{field.name}.NAME" if get_origin(field.type) is dict else field.name

    def _default_query(self) -> msgspec.Struct | None:
        if self.query is None or any(field.required for field in msgspec.structs.fields(self.query)):
            return None
        return self.query()


@final
class Router:
    """Finds routes by method and path. Paths are taken apart before they are decoded, so that %2F parts nothing."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self._root = _Node()
        for route in self.routes:
            node = self._root
            for part in route.path.split("/")[1:]:
                if not part.startswith("{"):
                    node = node.below.setdefault(part.encode(), _Node())
                    continue
                node.name = part[1:-1].removesuffix("...")
                node.rest = node.rest or part.endswith("...}")
                node.any = node.any or _Node()
                node = node.any
            assert route.method not in node.routes, f"{route.method} {route.path} stands twice in the table"
            node.routes[route.method] = route

    def find(self, method: str, raw_path: bytes) -> Found:
        """Return the route and its parameters, decoded.

        Raises:
            NotFoundError: There is no such path.
            MethodNotAllowedError: Only other methods; `details["allow"]` names them.
        """
        node, found = self._root, dict[str, str]()
        parts = raw_path.split(b"/")
        for index in range(1, len(parts)):
            below = node.below.get(parts[index])
            if below is None:
                below = node.any
                if below is None or not (parts[index] or node.rest):
                    raise no_path()
                if node.rest:
                    found[node.name] = _text(b"/".join(parts[index:]))
                    node = below
                    break
                found[node.name] = _text(parts[index])
            node = below
        route = node.routes.get(method) or (node.routes.get("GET") if method == "HEAD" else None)
        if route is not None:
            return route, found
        if not node.routes:
            raise no_path()
        raise MethodNotAllowedError(f"{method[:20]} is not for this path", allow=", ".join(node.allowed()))


@final
class _Node:
    """One place in the tree of paths."""

    __slots__ = ("any", "below", "name", "rest", "routes")

    def __init__(self) -> None:
        self.below: dict[bytes, _Node] = {}
        self.any: _Node | None = None
        self.name = ""
        self.rest = False
        self.routes: dict[str, Route] = {}

    def allowed(self) -> list[str]:
        return sorted({*self.routes, *(["HEAD"] if "GET" in self.routes else [])})


def _text(part: bytes) -> str:
    return decode(unquote_to_bytes(part)) if b"%" in part else part.decode("utf-8", "surrogateescape")


async def _nothing(call: object) -> None:
    """Stand for what is not there."""


UNMATCHED: Final = Route("", "unmatched", _nothing, permission=PUBLIC)
