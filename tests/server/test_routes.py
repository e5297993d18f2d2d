"""The table of routes and what is said about it agree."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from alcove.errors import SessionNotFoundError
from alcove.server.openapi import describe
from alcove.server.problems import MethodNotAllowedError
from alcove.server.route import PUBLIC, Route, Router
from alcove.server.routes import ROUTES
from server.asgi import Client

DOCS = Path(__file__).parents[2] / "docs"
DESCRIPTION = describe(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=repr)
def test_every_route_has_a_permission_a_description_and_a_line_in_the_docs(route: Route) -> None:
    assert route.permission == PUBLIC or re.fullmatch(r"[a-z]+\.[a-z]+", route.permission)
    operation = DESCRIPTION["paths"][route.path.replace("...}", "}")][route.method.lower()]
    assert operation["summary"].endswith((".", "."))
    assert operation["x-permission"] == route.permission
    assert {str(status) for status in (route.status, *route.others)} <= operation["responses"].keys()
    shown = route.path.replace("...}", "}").replace("{session_id}", "{id}").replace("{run_id}", "{id}")
    assert f"`{route.method} {shown}`" in (DOCS / "http.md").read_text()


def test_a_run_may_only_read_ask_what_it_may_and_say_how_it_goes() -> None:
    written = {route.permission for route in ROUTES if route.run and route.method != "GET"}
    assert written == {"runs.ask", "runs.authorize", "runs.report", "state.write"}
    for route in ROUTES:
        if route.run:
            # Whose state it is, a run's grant says.
            assert {"session_id", "run_id", "scope"} & set(route.parameters)


def test_what_may_be_called_without_permission_tells_nothing_of_sessions() -> None:
    public = {route.path for route in ROUTES if route.public}
    assert public == {"/health", "/livez", "/readyz", "/openapi.json", "/docs"}


def test_operations_have_names_of_their_own() -> None:
    names = [one["operationId"] for operations in DESCRIPTION["paths"].values() for one in operations.values()]
    assert len(set(names)) == len(names) == len(ROUTES)


def test_bodies_refuse_what_they_do_not_know() -> None:
    for route in ROUTES:
        if route.body:
            assert route.body.__struct_config__.forbid_unknown_fields, route


async def test_the_description_is_served(call: Client) -> None:
    answer = await call("GET", "/openapi.json")
    assert msgspec.json.decode(answer.body) == msgspec.json.decode(msgspec.json.encode(DESCRIPTION))


def test_every_field_and_parameter_is_described() -> None:
    for name, schema in DESCRIPTION["components"]["schemas"].items():
        for field, told in schema.get("properties", {}).items():
            assert told.get("description"), f"{name}.{field}"
    for path, operations in DESCRIPTION["paths"].items():
        for operation in operations.values():
            for parameter in operation["parameters"]:
                assert parameter.get("description"), f"{path} {parameter['name']}"


def test_the_filter_that_openapi_has_no_style_for_is_told_in_words() -> None:
    operation = DESCRIPTION["paths"]["/api/v1/sessions"]["get"]
    assert "metadata" not in {parameter["name"] for parameter in operation["parameters"]}
    assert "metadata.NAME=VALUE" in operation["description"]


async def test_the_page_shows_nothing_empty_and_no_markup(call: Client) -> None:
    page = (await call("GET", "/docs")).body.decode()
    assert "`" not in page
    assert "<table></table>" not in page
    assert "<code></code>" not in page
    assert page.count("<b>Problems</b>") == len(ROUTES)


async def test_the_page_loads_nothing_from_elsewhere(call: Client) -> None:
    answer = await call("GET", "/docs")
    page = answer.body.decode()
    assert not re.search(r"<script|<link|<img|@import|url\(|https?://", page)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "/api/v1/sessions/{session_id}/messages" in page


async def _nothing(call: object) -> None:
    del call


def test_the_router_parts_paths_before_it_decodes_them() -> None:
    router = Router(
        [
            Route("GET", "/a/{x}/b", _nothing, permission="a.b"),
            Route("GET", "/a/fixed", _nothing, permission="a.b"),
            Route("GET", "/a/{x}/rest/{path...}", _nothing, permission="a.b"),
        ]
    )
    assert router.find("GET", b"/a/%2Fb/b")[1] == {"x": "/b"}
    assert router.find("GET", b"/a/fixed")[1] == {}
    assert router.find("GET", b"/a/1/rest/p/q%2Fr//s")[1] == {"x": "1", "path": "p/q/r//s"}
    assert router.find("HEAD", b"/a/fixed")[0].method == "GET"
    with pytest.raises(MethodNotAllowedError) as caught:
        router.find("POST", b"/a/fixed")
    assert caught.value.details["allow"] == "GET, HEAD"
    for path in (b"", b"/", b"/a", b"/a/", b"/a//b", b"/a/fixed/", b"/a/1", b"a/fixed"):
        with pytest.raises(Exception, match="nothing at this path"):
            router.find("GET", path)


def test_a_table_may_not_hold_a_route_twice() -> None:
    route = Route("GET", "/a", _nothing, permission="a.b", errors=(SessionNotFoundError,))
    with pytest.raises(AssertionError, match="twice"):
        Router([route, route])
