"""JSON values, as types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
else:
    # msgspec reads annotations at run time and cannot follow a recursive alias; it decodes JSON and nothing else.
    Json = Any
Metadata: TypeAlias = dict[str, Json]
Scalar: TypeAlias = str | int | float | bool | None
