"""The table of routes as OpenAPI 3.1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final, TypeAlias, TypeGuard, get_args

import msgspec

import alcove
from alcove.errors import InvalidError, NotPermittedError, RateLimitedError, TooLargeError, UnauthorizedError
from alcove.rights.model import ALIASES, SCOPES
from alcove.server.problems import (
    ForbiddenError,
    MediaTypeError,
    MisdirectedError,
    Problem,
    TimedOutError,
    status_of,
)
from alcove.server.route import Route
from alcove.server.streaming import Download, EventStream

Node: TypeAlias = dict[str, Any]

_REF: Final = "#/components/schemas/{name}"
# Of each event, not of the stream: OpenAPI 3.1 has no other word for it.
_EVENT: Final = {
    "type": "object",
    "description": "See docs/events.md.",
    "properties": {
        "id": {"type": "string", "description": "The number to go on after."},
        "event": {"type": "string", "description": "What happened."},
        "data": {"type": "string", "description": "More about it, as a JSON object."},
    },
}
_KEY: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key (`alcove key create`). On the loopback none is needed while there are none.",
}
_BODY_ERRORS: Final = (MediaTypeError, TimedOutError, TooLargeError)
_EVERYWHERE: Final = (
    InvalidError,
    UnauthorizedError,
    ForbiddenError,
    NotPermittedError,
    MisdirectedError,
    RateLimitedError,
)
_ID: Final = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"}
_PARAMETERS: Final[dict[str, Node]] = {
    "session_id": {"description": "Which session.", "schema": _ID},
    "run_id": {"description": "Which run.", "schema": _ID},
    "approval_id": {"description": "Which request.", "schema": _ID},
    "key_id": {"description": "Which key.", "schema": _ID},
    "seq": {"description": "Which message, by its `seq`.", "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"}},
    "hash": {"description": "Which object: its SHA-256 in hex.", "schema": {"type": "string", "maxLength": 64}},
    "user": {
        "description": "The caller's own id of the user.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "scope": {
        "description": "Of state.",
        "schema": {"type": "string", "enum": [*SCOPES, *ALIASES]},
    },
    "key": {
        "description": "Which value.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 256},
    },
    "path": {
        "description": "Relative to the workspace; slashes part folders.",
        "schema": {"type": "string", "minLength": 1},
    },
}


def describe(routes: Iterable[Route]) -> Node:
    """Return the description of these routes."""
    routes = tuple(routes)
    kinds = [kind for route in routes for kind in (route.query, route.body, route.answer) if _is_struct(kind)]
    kinds = list(dict.fromkeys([*kinds, Problem]))
    references, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    schemas = dict(zip(kinds, references, strict=True))
    named = {kind.__name__: kind for kind in _with_inner(kinds)}
    for name, schema in components.items():
        _tell_plainly(schema, named[name].__mro__ if name in named else ())
    paths: dict[str, Node] = {}
    for route in routes:
        operations = paths.setdefault(route.path.replace("...}", "}"), {})
        operations[route.method.lower()] = _operation(route, schemas, components)
    for kind in {route.query for route in routes if route.query}:
        components.pop(schemas[kind]["$ref"].rpartition("/")[2], None)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Alcove",
            "version": alcove.__version__,
            "summary": "The session layer for AI agents.",
            "description": "Every error is a problem (RFC 9457) with a stable `code`. Instants are epoch seconds.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": _KEY}},
        "security": [{"key": []}],
    }


def _operation(route: Route, schemas: dict[Any, Node], components: dict[str, Any]) -> Node:
    summary, _, rest = route.text.partition("\n")
    noun = route.permission.partition(".")[0] if not route.public else "server"
    node: Node = {
        "operationId": f"{route.handler.__module__.rpartition('.')[2]}_{route.handler.__name__}",
        "summary": summary,
        "tags": [noun],
        "parameters": list(_parameters(route, schemas, components)),
        "responses": _responses(route, schemas),
        "x-permission": route.permission,
        "x-run": route.run,
    }
    if route.public:
        node["security"] = []
    if rest.strip():
        node["description"] = rest.strip()
    if route.body:
        node["requestBody"] = {
            "required": not route.body_optional,
            "content": {"application/json": {"schema": schemas[route.body]}},
        }
    if route.upload:
        node["requestBody"] = {
            "required": False,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    return node


def _parameters(route: Route, schemas: dict[Any, Node], components: dict[str, Any]) -> Iterable[Node]:
    for name in route.parameters:
        yield {"name": name, "in": "path", "required": True, **_PARAMETERS[name]}
    if route.query:
        schema = components[schemas[route.query]["$ref"].rpartition("/")[2]]
        for name, property_ in schema["properties"].items():
            # OpenAPI has no style for `name.key=value`: the operation's text tells it.
            if property_.get("type") == "object":
                continue
            node: Node = {"name": name, "in": "query", "required": name in schema.get("required", ())}
            told = {key: value for key, value in property_.items() if key == "description"}
            yield node | told | {"schema": {key: value for key, value in property_.items() if key not in told}}
    for name, text in route.headers.items():
        yield {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}


def _responses(route: Route, schemas: dict[Any, Node]) -> Node:
    node: Node = {}
    for status in (route.status, *route.others):
        content = {} if status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED} else _content(route, schemas)
        node[str(status)] = {"description": HTTPStatus(status).phrase, **({"content": content} if content else {})}
    failures = [*route.errors, *_EVERYWHERE, *(_BODY_ERRORS if route.body or route.upload else ())]
    for status in sorted({status_of(kind) for kind in failures}):
        names = sorted({kind.code for kind in failures if status_of(kind) == status})
        node.setdefault(
            str(status),
            {
                "description": f"Problem: {', '.join(names)}",
                "content": {"application/problem+json": {"schema": schemas[Problem]}},
            },
        )
    node["default"] = {
        "description": "Any other problem",
        "content": {"application/problem+json": {"schema": schemas[Problem]}},
    }
    return node


def _content(route: Route, schemas: dict[Any, Node]) -> Node:
    if route.answer is EventStream:
        return {"text/event-stream": {"schema": _EVENT}}
    if route.answer is Download:
        return {"*/*": {"schema": {"type": "string", "format": "binary"}}}
    if route.media:
        return {route.media.partition(";")[0]: {"schema": {}}}
    return {"application/json": {"schema": schemas[route.answer]}} if _is_struct(route.answer) else {}


def _with_inner(kinds: Iterable[type]) -> set[type[msgspec.Struct]]:
    """Return structs with those that stand in them."""
    found: set[type[msgspec.Struct]] = set()
    waiting: list[Any] = list(kinds)
    while waiting:
        kind = waiting.pop()
        if not _is_struct(kind):
            waiting += get_args(kind)
        elif kind not in found:
            found.add(kind)
            waiting += [field.type for field in msgspec.structs.fields(kind)]
    return found


def _is_struct(kind: type | None) -> TypeGuard[type[msgspec.Struct]]:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _tell_plainly(schema: Node, bases: tuple[type, ...]) -> None:
    """Move what a docstring, and those of the structs it builds on, say of its fields to the fields."""
    docstrings = [*(base.__doc__ or "" for base in reversed(bases)), schema.get("description", "")]
    told = {name: text for docstring in docstrings for name, text in _attributes(docstring).items()}
    schema["description"] = schema.get("description", "").partition("\n")[0]
    for name, property_ in schema.get("properties", {}).items():
        if name in told:
            property_["description"] = told[name]


def _attributes(docstring: str) -> dict[str, str]:
    """Return the lines under `Attributes:` of a docstring, by name."""
    lines = docstring.partition("Attributes:")[2]
    found = re.findall(r"^ *(\w+): ((?:.|\n(?! *\w+: ))+)", lines, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
