"""The description as a page for people: one document without scripts, fonts or anything from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import Any, Final

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE: Final = """
:root { color-scheme: light dark; --line: #8884; --dim: #888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin: 2.5rem 0 .5rem; text-transform: capitalize; }
details { border-top: 1px solid var(--line); padding: .4rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
code { font: .9em ui-monospace, monospace; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
.dim { color: var(--dim); }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: .92em; }
td { padding: .15rem .9rem .15rem 0; vertical-align: top; }
"""


def render(description: dict[str, Any]) -> str:
    """Return the page for an OpenAPI description."""
    info = description["info"]
    by_noun: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            by_noun.setdefault(operation["tags"][0], []).append(
                "".join(_operation(path, method, operation, description["components"]["schemas"]))
            )
    sections = "".join(f"<h2>{escape(noun)}</h2>{''.join(parts)}" for noun, parts in by_noun.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} HTTP interface</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(info['title'])} <span class=dim>{escape(info['version'])}</span></h1>"
        f"<p>{_prose(info['summary'])} {_prose(info['description'])} "
        'For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>'
        f"{sections}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><code><span class=method>{method.upper()}</span>{escape(path)}</code>"
    yield f"<br><span class=dim>{_prose(operation['summary'])}</span></summary>"
    if "description" in operation:
        yield f"<p>{_prose(operation['description'])}</p>"
    parameters = operation["parameters"]
    if parameters:
        yield "<div><b>Parameters</b></div>"
        yield _table((one["name"], f"{one['in']}, {_kind(one['schema'], schemas)}", _told(one)) for one in parameters)
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<div><b>Body</b> {escape(media)}</div>"
        yield _table(_fields(content["schema"], schemas))
    # What has the same form follows upon one another: several successes, then all problems.
    for content, answers in groupby(operation["responses"].items(), key=lambda item: item[1].get("content", {})):
        told = " · ".join(f"{status} {answer['description']}" for status, answer in answers if status != "default")
        if "application/problem+json" in content:
            yield f"<div><b>Problems</b> <span class=dim>{escape(told.replace('Problem: ', ''))}</span></div>"
            continue
        yield f"<div><b>{escape(told)}</b> {escape(' '.join(content))}</div>"
        yield "".join(_table(_fields(one["schema"], schemas)) for one in content.values())
    yield "</details>"


def _fields(schema: dict[str, Any], schemas: dict[str, Any], above: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield the fields of an object, and after each the fields of the objects in it."""
    named = _resolved(schema, schemas)
    required = named.get("required", ())
    for name, field in named.get("properties", {}).items():
        optional = "" if name in required else "?"
        yield above + name + optional, _kind(field, schemas), _told(field)
        if field.get("type") == "array":
            yield from _fields(field.get("items", {}), schemas, f"{above}{name}[].")
        else:
            yield from _fields(field, schemas, f"{above}{name}.")


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code><td class=dim>{escape(kind)}<td>{_prose(told)}"
        for name, kind, told in rows
    )
    return f"<table>{cells}</table>" if cells else ""


def _told(node: dict[str, Any]) -> str:
    return str(node.get("description", ""))


def _prose(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    return named


def _kind(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    schema = _resolved(schema, schemas)
    if "anyOf" in schema:
        return " or ".join(_kind(one, schemas) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_kind(schema.get('items', {}), schemas)}" if kind == "array" else kind
