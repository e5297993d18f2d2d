"""The description as a page for people: one document without scripts, fonts or anything from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
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
        f"<p>{escape(info['summary'])} {escape(info['description'])} "
        'For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>'
        f"{sections}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield f"<details><summary><code><span class=method>{method.upper()}</span>{escape(path)}</code>"
    yield f"<br><span class=dim>{escape(operation['summary'])}</span></summary>"
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    for parameter in operation["parameters"]:
        yield _table(f"{parameter['in']} {parameter['name']}", [("", _kind(parameter["schema"]), _told(parameter))])
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield _table(f"Body, {media}", list(_fields(content["schema"], schemas)))
    for status, answer in operation["responses"].items():
        rows = [row for content in answer.get("content", {}).values() for row in _fields(content["schema"], schemas)]
        yield _table(f"{status} {answer['description']}", rows if status[0] == "2" else [])
    yield "</details>"


def _fields(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    named = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
    required = named.get("required", ())
    for name, field in named.get("properties", {}).items():
        yield name + ("" if name in required else "?"), _kind(field), _told(field)


def _table(head: str, rows: list[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td><code>{escape(name)}</code><td class=dim>{escape(kind)}<td>{escape(told)}"
        for name, kind, told in rows
    )
    return f"<div><b>{escape(head)}</b></div><table>{cells}</table>"


def _told(node: dict[str, Any]) -> str:
    return str(node.get("description", ""))


def _kind(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_kind(schema.get('items', {}))}" if kind == "array" else kind
