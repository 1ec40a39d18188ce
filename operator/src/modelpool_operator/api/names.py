"""Every name that appears in the API: group, kinds, labels, annotations, finalizers, ports, reasons."""

from enum import StrEnum
from typing import Final

GROUP: Final = "modelpool.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

MODEL_WORKER: Final = "ModelWorker"
MODEL_WORKERS: Final = "modelworkers"
MODEL_POOL: Final = "ModelPool"
MODEL_POOLS: Final = "modelpools"
MODEL: Final = "Model"
MODELS: Final = "models"

#: On a ModelWorker from before its reservation until after its release.
WORKER_FINALIZER: Final = f"{GROUP}/worker"
#: On a ModelPool until its ledger is empty.
POOL_FINALIZER: Final = f"{GROUP}/pool"
#: Scheduling gate of a worker's pod: lifted once the pool's ledger holds the pod's entry.
QUOTA_GATE: Final = f"{GROUP}/quota"

LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
MANAGED_BY: Final = "modelpool-operator"
LABEL_WORKER: Final = f"{GROUP}/worker"
LABEL_WORKER_UID: Final = f"{GROUP}/worker-uid"
LABEL_POOL: Final = f"{GROUP}/pool"
LABEL_CAPABILITY: Final = f"{GROUP}/capability"
#: Name of the Model that a worker belongs to, and the hash of the template that it was made from.
LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_TEMPLATE: Final = f"{GROUP}/template"
#: Name of the Model that a Lease asks a worker for.
LABEL_DEMAND: Final = f"{GROUP}/demand"
#: When the quota gate was lifted (RFC 3339): the schedule deadline counts from here.
ANNOTATION_GATE_LIFTED: Final = f"{GROUP}/gate-lifted"
#: On a demand Lease, whole seconds: keep the Model's workers for so long after their last use. -1: for as long as may
#: be. A Lease without it says that somebody waits for a worker.
ANNOTATION_KEEP_ALIVE: Final = f"{GROUP}/keep-alive"
#: On a Model whose workers an uninstall has stopped: no worker is made for it.
ANNOTATION_DRAINED: Final = f"{GROUP}/drained"

WORKER_CONTAINER: Final = "worker"


def demand_lease(model: str) -> str:
    """Return the name of the Lease that asks for a worker of a Model."""
    return f"demand-{model}"


class Reason(StrEnum):
    """Why a worker is where it is; stable, shown as ``status.reason`` and as the reason of Events."""

    # waiting
    ACCEPTED = "Accepted"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    EXCEEDS_POOL = "ExceedsPool"
    POOL_NOT_FOUND = "PoolNotFound"
    POOL_HELD = "PoolHeld"
    QUOTA_RESERVED = "QuotaReserved"
    UNSCHEDULABLE = "Unschedulable"
    POD_PENDING = "PodPending"
    CONTAINER_STARTED = "ContainerStarted"
    CONTAINER_RESTARTED = "ContainerRestarted"
    # serving
    MODEL_LOADED = "ModelLoaded"
    REQUEST_ADMITTED = "RequestAdmitted"
    REQUESTS_DONE = "RequestsDone"
    IDLE_TIMEOUT = "IdleTimeout"
    # failing
    MODEL_LOAD_FAILED = "ModelLoadFailed"
    CRASH_LOOP = "CrashLoopBackOff"
    OOM_KILLED = "OOMKilled"
    IMAGE_PULL = "ImagePullError"
    LOAD_DEADLINE = "LoadDeadlineExceeded"
    SCHEDULE_DEADLINE = "ScheduleDeadlineExceeded"
    CONFIG = "ConfigError"
    POD_LOST = "PodLost"
    POD_REJECTED = "PodRejected"
    # leaving
    HEALTH_CHECK = "HealthCheckFailed"
    NODE_LOST = "NodeLost"
    EXITED_UNEXPECTEDLY = "ExitedUnexpectedly"
    POD_TERMINATING = "PodTerminating"
    IDLE_EVICTION = "IdleEviction"
    ROOM_EVICTION = "RoomEviction"
    POOL_DRAIN = "PoolDrain"
    REPLACED = "Replaced"
    SCALED_DOWN = "ScaledDown"
    SHUTDOWN = "Shutdown"
    DELETED = "Deleted"
