"""Finds the route of a path by one look-up; trying each of some thirty takes as long as FastAPI
needs for all the rest of a small request."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fastapi.routing import APIRoute
from fastapi.telemetry._api import _route_selected
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

_NUMBER = re.compile(r"/[0-9]+(?=/|$)")
_PARAMETER = re.compile(r"/\{[^}]*\}")


class RouteIndex(BaseRoute):
    """Stands before the routes it leads to, and hands over to what it does not know itself:
    other methods, ids that are no numbers, an app behind a prefix."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        self._routes = {
            (method, _PARAMETER.sub("/{}", route.path)): route
            for route in routes
            if isinstance(route, APIRoute)
            for method in route.methods or ()
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] != "http" or scope.get("root_path"):
            return Match.NONE, {}
        route = self._routes.get((scope["method"], _NUMBER.sub("/{}", scope["path"])))
        return route.matches(scope) if route else (Match.NONE, {})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        # As the router does with what it finds: metrics and traces go by the route's template.
        _route_selected(scope=scope, path=scope["route"].path_format)
        await scope["route"].handle(scope, receive, send)
