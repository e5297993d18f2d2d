"""Histories in the forms that providers take and give: one module for each, with `to` and `read`.

`to` takes messages (a window) or drafts, and makes of them what the provider accepts: tool results right after their
calls, nothing empty, system messages where they belong. `read` takes what the provider's API takes or gives and returns
drafts to append. What one form cannot say is left out; parts of unknown types are passed through.
"""

from __future__ import annotations
