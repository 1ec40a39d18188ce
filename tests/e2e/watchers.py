"""A recording of all that happened in one namespace: every resourceVersion of its pools, workers, Models and pods."""

import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

from kubernetes import client, watch

GROUP, VERSION = "modelpool.dev", "v1alpha1"
PODS, WORKERS, POOLS, MODELS = "pods", "modelworkers", "modelpools", "models"
KINDS = (PODS, WORKERS, POOLS, MODELS)
#: The pods that are recorded are those of workers.
SELECTOR = "app.kubernetes.io/managed-by=modelpool-operator"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one object; ``gone`` marks its removal, ``at`` is when we learned of it (monotonic seconds)."""

    kind: str
    body: Json
    gone: bool
    at: float

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def uid(self) -> str:
        return str(self.body["metadata"]["uid"])

    @property
    def number(self) -> int:
        """The resourceVersion: one store counts for all kinds, so versions of different objects can be ordered."""
        return int(self.body["metadata"]["resourceVersion"])

    @property
    def status(self) -> Json:
        found: Json = self.body.get("status") or {}
        return found


class Recorder:
    """Watches from a known resourceVersion on, so that no version is missed; a watch that breaks is a failure."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.namespace = namespace
        self._core = client.CoreV1Api(api)
        self._objects = client.CustomObjectsApi(api)
        self._changed = threading.Condition()
        self._versions: list[Version] = []
        self._broken: Exception | None = None
        self._closing = False
        self._watches = {kind: watch.Watch() for kind in KINDS}
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for kind in KINDS:
            found = self._list(kind)
            self._add(Version(kind, body, gone=False, at=time.monotonic()) for body in found["items"])
            start = found["metadata"]["resourceVersion"]
            thread = threading.Thread(target=self._follow, args=(kind, start), name=f"watch {kind}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for thread, each in zip(self._threads, self._watches.values(), strict=True):
            while thread.is_alive():  # a watch that was just between two connections does not hear the first call
                each.stop()
                thread.join(0.2)

    # What was seen; the questions about "now" and "so far" are answered once the recording has caught up

    def mark(self) -> int:
        """A point in the recording, for ``until(…, after=…)``."""
        with self._changed:
            return len(self._versions)

    def versions(self, kind: str, name: str | None = None) -> list[Version]:
        """All recorded versions of a kind, or of one object of it, in order."""
        with self._changed:
            return [each for each in self._versions if each.kind == kind and name in (None, each.name)]

    def latest(self, kind: str, name: str) -> Json:
        """The object as it is, or as it last was; fails where there has never been one."""
        self.catch_up()
        found = self.versions(kind, name)
        assert found, f"there has never been an object {name} among the {kind}"
        return found[-1].body

    def states(self, worker: str) -> list[str]:
        """The states of a worker in order, each run of the same state once."""
        self.catch_up()
        return _runs(version.status.get("state") for version in self.versions(WORKERS, worker))

    def reserved(self, pool: str) -> list[int]:
        """What ``status.reserved.memoryMiB`` of a pool was, in order, each run of the same number once."""
        self.catch_up()
        return _runs((version.status.get("reserved") or {}).get("memoryMiB") for version in self.versions(POOLS, pool))

    def holders(self, pool: str) -> list[list[str]]:
        """The workers that the ledger of a pool named, in order, each run of the same ones once."""
        self.catch_up()
        ledgers = (version.status.get("ledger") or {} for version in self.versions(POOLS, pool))
        return _runs(sorted(entry["name"] for entry in ledger.values()) for ledger in ledgers)

    def story(self) -> str:
        """What happened, a line for each change that a person would call one."""
        lines, last = [], dict[tuple[str, str], str]()
        with self._changed:
            versions = list(self._versions)
        for version in versions:
            line = f"{version.kind} {version.name}: {_gist(version)}"
            if last.get((version.kind, version.uid)) != line:
                last[(version.kind, version.uid)] = line
                lines.append(f"{version.at - versions[0].at:7.1f} s  {line}")
        return "\n".join(lines)

    # Waiting

    def until(
        self, kind: str, name: str, test: Callable[[Version], Any], what: str, *, seconds: float = 120, after: int = 0
    ) -> Version:
        """The first version recorded after the mark ``after`` that passes the test, as soon as it is there."""
        deadline = time.monotonic() + seconds
        with self._changed:
            checked = after
            while True:
                for version in self._versions[checked:]:
                    if version.kind == kind and version.name == name and test(version):
                        return version
                checked = len(self._versions)
                self._wait(deadline, f"{name} ({kind}): {what}", seconds)

    def until_state(self, worker: str, *states: str, seconds: float = 120, after: int = 0) -> Version:
        """The first version in one of these states."""
        wanted = " or ".join(states)
        return self.until(
            WORKERS, worker, lambda seen: seen.status.get("state") in states, wanted, seconds=seconds, after=after
        )

    def until_now(
        self, kind: str, name: str, test: Callable[[Version], Any], what: str, *, seconds: float = 120
    ) -> Version:
        """The latest version, once it is one that passes the test."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                known = [version for version in self._versions if version.kind == kind and version.name == name]
                if known and test(known[-1]):
                    return known[-1]
                self._wait(deadline, f"{name} ({kind}): {what}", seconds)

    def until_gone(self, kind: str, name: str, *, seconds: float = 120) -> Version:
        """The removal of an object."""
        return self.until(kind, name, lambda seen: seen.gone, "gone", seconds=seconds)

    def catch_up(self, seconds: float = 30) -> None:
        """Return once the recording has all that the API server has now: every version listed, every removal."""
        for kind in KINDS:
            there = {body["metadata"]["uid"]: body["metadata"]["resourceVersion"] for body in self._list(kind)["items"]}
            deadline = time.monotonic() + seconds
            with self._changed:
                while True:
                    seen = {each.uid: each for each in self._versions if each.kind == kind}
                    behind = [uid for uid, number in there.items() if uid not in seen or seen[uid].number < int(number)]
                    late = [uid for uid, each in seen.items() if uid not in there and not each.gone]
                    if not behind and not late:
                        break
                    self._wait(deadline, f"the recording of {kind} catches up", seconds)

    def _wait(self, deadline: float, what: str, seconds: float) -> None:
        if self._broken is not None:
            raise AssertionError(f"the recording broke off: {self._broken}") from self._broken
        if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
            raise AssertionError(f"expected within {seconds:.0f} s: {what}; what happened instead:\n{self.story()}")

    # Recording

    def _list(self, kind: str) -> Any:
        if kind == PODS:
            pods = self._core.list_namespaced_pod(self.namespace, label_selector=SELECTOR, _preload_content=False)
            return json.loads(pods.data)
        return self._objects.list_namespaced_custom_object(GROUP, VERSION, self.namespace, kind)

    def _follow(self, kind: str, start: str) -> None:
        followed = self._watches[kind]
        narrowed = {"label_selector": SELECTOR} if kind == PODS else {}
        if kind == PODS:
            call, arguments = self._core.list_namespaced_pod, (self.namespace,)
        else:
            call, arguments = self._objects.list_namespaced_custom_object, (GROUP, VERSION, self.namespace, kind)
        version = start
        while not self._closing:
            try:
                for event in followed.stream(call, *arguments, resource_version=version, **narrowed):
                    body = event["raw_object"]
                    version = body["metadata"]["resourceVersion"]
                    self._add([Version(kind, body, event["type"] == "DELETED", time.monotonic())])
            except Exception as error:  # handed over to whoever waits; the end of a closed connection is none
                if not self._closing:
                    with self._changed:
                        self._broken = error
                        self._changed.notify_all()
                return

    def _add(self, versions: Iterable[Version]) -> None:
        with self._changed:
            self._versions.extend(versions)
            self._changed.notify_all()


def _runs(values: Iterable[Any]) -> list[Any]:
    return [value for value, _ in groupby(each for each in values if each is not None)]


def _gist(version: Version) -> str:
    if version.gone:
        return "gone"
    status = version.status
    if version.kind == POOLS:
        return f"reserved {status.get('reserved')}, repairs {status.get('ledgerRepairs', 0)}"
    if version.kind == WORKERS:
        return f"{status.get('state')} {status.get('reason')}: {status.get('message')}"
    if version.kind == MODELS:
        ready = [each for each in status.get("conditions") or () if each["type"] == "Ready"]
        told = f"Ready {ready[0]['status']} {ready[0]['reason']}: {ready[0]['message']}" if ready else "new"
        return f"{status.get('replicas')} of {status.get('desiredReplicas')}, {told}"
    gates = version.body["spec"].get("schedulingGates") or []
    leaving = ", leaving" if version.body["metadata"].get("deletionTimestamp") else ""
    containers = [each.get("state") for each in status.get("containerStatuses") or ()]
    return f"{status.get('phase')}{', gated' if gates else ''}{leaving} {containers}"
