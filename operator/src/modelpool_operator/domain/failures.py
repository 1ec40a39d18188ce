"""Whether a pod's state means that its worker will not come back, and why.

The order matters: the first rule that fits names the reason, so the more specific ones come first.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from modelpool_api.pod import EXIT_EVICTED, EXIT_NEVER_LOADS
from modelpool_api.wire import MAX_MESSAGE_CHARS
from modelpool_operator.api import names
from modelpool_operator.api.names import Reason
from modelpool_operator.domain.podview import Container, PodView, Termination
from modelpool_operator.domain.rules import Rules

#: The kubelet itself will not try these again, or trying again cannot help.
_HOPELESS_IMAGE: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_IMAGE: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"})
_CONFIG: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
#: What the operator asks processes to leave for.
_AGREED: Final = frozenset(
    {Reason.IDLE_EVICTION, Reason.ROOM_EVICTION, Reason.POOL_DRAIN, Reason.SHUTDOWN, Reason.DELETED}
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker failed; becomes ``status.reason``, ``status.message`` and ``status.lastFailure``."""

    reason: Reason
    message: str
    exit_code: int | None = None
    own_words: str = ""
    time: datetime | None = None


def container_failure(container: Container, forgiven: int, rules: Rules) -> Failure | None:
    """Return why the container's ends so far mean failure; None while it may still be tried again.

    ``forgiven`` restarts happened before the worker had last been Ready for the restart window and do not count:
    with a limit of 3, the fourth end that counts is the failure.
    """
    ended = container.last
    if ended is None:
        return None
    if ended.exit_code == EXIT_NEVER_LOADS:
        return _ended(Reason.MODEL_LOAD_FAILED, ended, "the model can never load here")
    counted = container.failures - forgiven
    if counted <= rules.restart_limit:
        return None
    times = "once" if counted == 1 else f"{counted} times"
    why = f"the container ended {times}, more than the limit of {rules.restart_limit} restarts"
    if ended.reason == "OOMKilled":
        hint = "; give the worker more memory (spec.memory, or spec.template.resources.limits.memory)"
        return _ended(Reason.OOM_KILLED, ended, why + ", killed for using more memory than its limit" + hint)
    return _ended(Reason.CRASH_LOOP, ended, why)


def waiting_reason(pod: PodView) -> tuple[Reason, str]:
    """Return what a pod that has not started waits for: a reason and a sentence, for people."""
    waiting = pod.container.waiting_reason if pod.container else ""
    said = f": {pod.container.waiting_message}" if pod.container and pod.container.waiting_message else ""
    if waiting in _IMAGE or waiting in _HOPELESS_IMAGE:
        return Reason.IMAGE_PULL, _cut(f"an image cannot be pulled ({waiting}){said}")
    if waiting in _CONFIG:
        return Reason.CONFIG, _cut(f"the container cannot be created ({waiting}){said}")
    if pod.init_failure:
        return Reason.CONFIG, _cut(pod.init_failure)
    if not pod.scheduled and pod.scheduling_reason == "Unschedulable":
        return Reason.UNSCHEDULABLE, _cut(f"no node takes the pod: {pod.scheduling_message}")
    if not pod.scheduled:
        return Reason.POD_PENDING, "the pod waits for the scheduler"
    return Reason.POD_PENDING, f"the pod is on node {pod.node} and waits for its image, volumes and container"


def hopeless_start(pod: PodView) -> Failure | None:
    """Return why the pod can never start, where that is certain without waiting for a deadline."""
    waiting = pod.container.waiting_reason if pod.container else ""
    if waiting in _HOPELESS_IMAGE:
        return Failure(*waiting_reason(pod))
    if pod.phase == "Failed":
        return pod_failed(pod)
    return None


def node_lost(pod: PodView) -> Failure | None:
    """Describe the loss of its node, where that is what the pod goes for."""
    if pod.disruption == "DeletionByPodGC":
        return Failure(Reason.NODE_LOST, f"node {pod.node} is gone; its pods are collected")
    if pod.disruption == "DeletionByTaintManager" or pod.reason == "NodeLost":
        return Failure(Reason.NODE_LOST, f"node {pod.node} does not answer; its pods are being deleted")
    return None


def pod_failed(pod: PodView) -> Failure:
    """Describe a pod that the kubelet or the node gave up: evicted for node pressure, rejected, its node gone."""
    if lost := node_lost(pod):
        return lost
    said = f": {pod.message}" if pod.message else ""
    return Failure(Reason.POD_REJECTED, _cut(f"the node gave the pod up ({pod.reason or 'Failed'}){said}"))


def agreed_exit(pod: PodView) -> tuple[Reason, str] | None:
    """Return why a process left that ended as it had agreed to: its last word, whoever asked and may not have heard."""
    ended = _final_end(pod)
    if ended is None or ended.exit_code != EXIT_EVICTED or ended.message not in _AGREED:
        return None
    return Reason(ended.message), "the worker has ended as it was asked to"


def unexpected_exit(pod: PodView) -> Failure | None:
    """Describe an exit 0 that nobody asked for; None where the container did not end with 0."""
    ended = _final_end(pod)
    if pod.phase == "Succeeded" or (ended is not None and ended.exit_code == EXIT_EVICTED):
        why = "the process ended with exit code 0 though nobody had told it to stop"
        return _ended(Reason.EXITED_UNEXPECTEDLY, ended, why) if ended else Failure(Reason.EXITED_UNEXPECTEDLY, why)
    return None


def last_failure(failure: Failure, now: datetime) -> dict[str, object]:
    """Return ``status.lastFailure``: the worker's own sentence where it left one, else ours."""
    from_worker = failure.own_words or failure.message
    found: dict[str, object] = {
        "reason": str(failure.reason),
        "message": from_worker,
        "container": names.WORKER_CONTAINER,
        "time": (failure.time or now).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    if failure.exit_code is not None:
        found["exitCode"] = failure.exit_code
    return found


def describe_end(ended: Termination) -> Failure:
    """Describe one end of the container that is not yet a failure of the worker."""
    reason = Reason.OOM_KILLED if ended.reason == "OOMKilled" else Reason.CONTAINER_RESTARTED
    return _ended(reason, ended, "the container ended and is started again")


def _final_end(pod: PodView) -> Termination | None:
    """Return how the container ended last, where it does not run again."""
    return pod.container.last if pod.container and not pod.container.running else None


def _ended(reason: Reason, ended: Termination, why: str) -> Failure:
    own = ended.message[:MAX_MESSAGE_CHARS]
    sentence = f"{why}; exit code {ended.exit_code}" + (f": {own}" if own else "")
    return Failure(reason, _cut(sentence), ended.exit_code, own, ended.finished)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"
