"""``CLUSTER=current``: the cluster of the current kube context, which belongs to somebody and is asked for first."""

import os
import shutil

from cluster import binaries
from cluster.host import ClusterError, run
from cluster.target import RELEASE, SYSTEM_NAMESPACE, Target

SOURCE = "hf://sentence-transformers/all-MiniLM-L6-v2"
REMOVE_REST = (
    "kubectl delete crd models.modelpool.dev modelworkers.modelpool.dev modelpools.modelpool.dev",
    f"kubectl delete namespace {SYSTEM_NAMESPACE}",
)
BUILD = """IMAGE_REPOSITORY says where the nodes of that cluster find the images: registry.example.com/modelpool.
Build and push them from the top of this checkout (buildah bud and buildah push do the same):
  docker build -f operator/Dockerfile -t $IMAGE_REPOSITORY/operator:0.1.0 .
  docker build -f worker_image/Dockerfile -t $IMAGE_REPOSITORY/worker:0.1.0 .
  docker push $IMAGE_REPOSITORY/operator:0.1.0
  docker push $IMAGE_REPOSITORY/worker:0.1.0
With kind load them instead of pushing:
  kind load docker-image $IMAGE_REPOSITORY/operator:0.1.0 $IMAGE_REPOSITORY/worker:0.1.0
IMAGE_TAG says another tag than 0.1.0, MODEL_SOURCE another place of all-MiniLM-L6-v2 than its hub."""


def target() -> Target:
    """The current context's cluster, once the user has agreed.

    Raises `ClusterError` when there is no context, no ``IMAGE_REPOSITORY``, or the answer is no.
    """
    if shutil.which("kubectl") is None:
        raise ClusterError("CLUSTER=current needs kubectl on PATH, with a context of your cluster")
    repository = os.environ.get("IMAGE_REPOSITORY", "").rstrip("/")
    if not repository:
        raise ClusterError(f"CLUSTER=current needs IMAGE_REPOSITORY.\n{BUILD}")
    context = run(["kubectl", "config", "current-context"]).strip()
    agree(context)
    tag = os.environ.get("IMAGE_TAG") or "0.1.0"
    environment = {}
    if shutil.which("helm") is None:
        environment["PATH"] = f"{os.environ.get('PATH', '')}:{binaries.ensure(['helm'])}"
    return Target(
        title=f"the cluster of context {context}",
        prefix=(),
        environment=environment,
        operator_image=f"{repository}/operator:{tag}",
        worker_image=f"{repository}/worker:{tag}",
        model_source=os.environ.get("MODEL_SOURCE") or SOURCE,
        shell="",
    )


def agree(context: str) -> None:
    """Ask before anything is touched; ``YES=1`` has answered already."""
    if os.environ.get("YES") == "1":
        return
    question = f"Install Modelpool (release {RELEASE} in {SYSTEM_NAMESPACE}) into context {context}? [y/N] "
    try:
        answer = input(question)
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise ClusterError(f"nothing was done to {context}; answer y, or set YES=1")
