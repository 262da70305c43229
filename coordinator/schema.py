"""All tables in one place, for the migrations and the test that compares them."""

from __future__ import annotations

from coordinator.access import models as access
from coordinator.db import Base
from coordinator.hosts import models as hosts
from coordinator.jobs import models as jobs
from coordinator.points import models as points
from coordinator.vaults import models as vaults

TABLES = (access, hosts, jobs, points, vaults)

metadata = Base.metadata
