"""Whatever the description allows is answered as it says; whatever it forbids is refused (schemathesis)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS

import alcove.hub
from alcove.server.app import App
from alcove.server.auth import LoopbackGate
from alcove.server.call import Site
from alcove.server.openapi import describe
from alcove.server.protocol import configured
from alcove.server.routes import ROUTES
from alcove.settings import load
from alcove.telemetry.metrics import Metrics
