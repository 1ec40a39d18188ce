"""How a worker's container is addressed and configured: set by the operator, read by the worker.

The worker knows nothing of Kubernetes: it sees ports, environment variables, folders and exit codes.
"""

from typing import Final

INFERENCE_PORT: Final = 8080
LIFECYCLE_PORT: Final = 8081

#: Prefix of every environment variable that the operator sets. The worker's settings are the part after it.
ENV_PREFIX: Final = "MODELPOOL_"

#: uid of the ModelWorker; pongs carry it.
ENV_WORKER_ID: Final = "MODELPOOL_WORKER_ID"
#: name the model answers to in the ``model`` field of requests
ENV_MODEL_NAME: Final = "MODELPOOL_MODEL_NAME"
ENV_CAPABILITY: Final = "MODELPOOL_CAPABILITY"
#: the source as the user wrote it, such as ``hf://org/name@rev``
ENV_MODEL_SOURCE: Final = "MODELPOOL_MODEL_SOURCE"
ENV_MODEL_REVISION: Final = "MODELPOOL_MODEL_REVISION"
#: folder where the operator mounted the source (``pvc://`` and ``oci://``); empty for hf:// and file://
ENV_MODEL_PATH: Final = "MODELPOOL_MODEL_PATH"
#: auto, float32, bfloat16 or float16
ENV_DTYPE: Final = "MODELPOOL_DTYPE"
#: number of accelerators promised; more than 0 and none found is a failed load
ENV_GPUS: Final = "MODELPOOL_GPUS"
ENV_IDLE_TIMEOUT_SECONDS: Final = "MODELPOOL_IDLE_TIMEOUT_SECONDS"
ENV_DRAIN_TIMEOUT_SECONDS: Final = "MODELPOOL_DRAIN_TIMEOUT_SECONDS"
#: hosts that images may be fetched from, separated by commas; none: no image is fetched
ENV_IMAGE_URL_HOSTS: Final = "MODELPOOL_IMAGE_URL_HOSTS"
#: networks that no image is fetched from, besides those that are not public
ENV_IMAGE_URL_REFUSED_NETWORKS: Final = "MODELPOOL_IMAGE_URL_REFUSED_NETWORKS"
#: true: the inference port, too, asks for the pool's token
ENV_CLOSED_INFERENCE: Final = "MODELPOOL_CLOSED_INFERENCE"

#: folder with the pool's bearer token in a file ``token``; it may change while the worker runs
TOKEN_DIR: Final = "/var/run/modelpool/token"  # noqa: S105 - a path, not a secret
TOKEN_FILE: Final = "token"  # noqa: S105 - a file name, not a secret
#: writable folder for downloads (HF_HOME lives in it)
CACHE_DIR: Final = "/var/cache/modelpool"
MODEL_MOUNT: Final = "/models"
#: the worker's last sentence, at most 1024 characters, for the operator's ``lastFailure.message``; after an eviction
#: that it agreed to, the reason it was asked for
TERMINATION_FILE: Final = "/dev/termination-log"

#: seconds an evicted worker goes on answering 503 before it ends
LINGER_SECONDS: Final = 2.0

EXIT_EVICTED: Final = 0
EXIT_CRASHED: Final = 1
#: EX_CONFIG of sysexits.h: this model can never load here; trying again is pointless
EXIT_NEVER_LOADS: Final = 78
#: 128 + SIGTERM: drained and stopped without having been evicted
EXIT_TERMINATED: Final = 143
