"""The embedded system's servers: a private data folder, and Valkey and SeaweedFS under supervision.

`up` and `quickstart` take a `DataFolder` (one run at a time), a `Supervisor` (nothing is left behind), and start the
servers in it; the coordinator and the worker are further `Service`s of the same supervisor.
"""

from coordinator.embedded.datafolder import DataFolder, DataLayout
from coordinator.embedded.processes import Service, ServiceState, ServiceStatus, Supervisor
from coordinator.embedded.seaweedfs import StoreAccess, create_bucket, start_seaweedfs
from coordinator.embedded.valkey import QueueAccess, QueueUser, host_user, start_valkey

__all__ = [
    "DataFolder",
    "DataLayout",
    "QueueAccess",
    "QueueUser",
    "Service",
    "ServiceState",
    "ServiceStatus",
    "StoreAccess",
    "Supervisor",
    "create_bucket",
    "host_user",
    "start_seaweedfs",
    "start_valkey",
]
