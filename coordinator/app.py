"""The front door: the FastAPI application of the api role."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from fastapi import FastAPI, Request
from starlette.responses import PlainTextResponse, Response

from common import __version__
from common.contracts.operator import HealthView
from common.errors import NotAuthenticated
from coordinator import problems
from coordinator.access.callers import With
from coordinator.access.facts import epoch
from coordinator.access.gate import Gate
from coordinator.access.tokens import check_token
from coordinator.hosts import routes as hosts
from coordinator.jobs import routes as jobs
from coordinator.metrics import Exposition, FleetMetrics
from coordinator.points import routes as points
from coordinator.service import Services
from coordinator.vaults import routes as vaults

_EXPOSITION = "text/plain; version=0.0.4; charset=utf-8"


def make_app(services: Services) -> FastAPI:
    """`/v1`, `/metrics`, `/metrics/fleet` and `/openapi.json`."""
    app = FastAPI(title="stateward", version=__version__, docs_url=None, redoc_url=None)
    app.state.services = services
    for router in (
        hosts.host_side,
        jobs.host_side,
        vaults.router,
        hosts.operator_side,
        jobs.operator_side,
        points.router,
    ):
        app.include_router(router)
    app.add_api_route("/v1/health", _health, tags=["health"])
    fleet = FleetMetrics(services.db, services.clock)
    app.add_route("/metrics", _metrics(services, services.metrics.exposition))
    app.add_route("/metrics/fleet", _metrics(services, fleet.exposition))
    problems.install(app)
    app.add_middleware(Gate, services=services)
    return app


def _health(services: With) -> HealthView:
    """Needs no token: says that API and database answer, and nothing else."""
    with services.db.read() as session:
        return HealthView(status="ok", version=__version__, epoch=epoch(session), server_time=services.clock())


def _metrics(services: Services, exposition: Exposition) -> Callable[[Request], Response]:
    networks = [ipaddress.ip_network(each) for each in services.settings.metrics_networks]

    def allowed(request: Request) -> bool:
        try:
            with services.db.read() as session:
                check_token(session, request.headers.get("authorization"), now=services.clock())
        except NotAuthenticated:
            client = request.client.host if request.client else ""
            try:
                address = ipaddress.ip_address(client)
            except ValueError:
                return False
            return any(address in network for network in networks)
        return True

    def answer(request: Request) -> Response:
        """404 for who may not look: that there is anything is nobody's business."""
        if not allowed(request):
            return PlainTextResponse("Not Found", status_code=404)
        return Response(exposition(), media_type=_EXPOSITION)

    return answer
