"""``make demo``: the main job on a real Kubernetes, shown from the first resource to the last byte given back."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import binaries, current, images, preflight
from cluster.host import ClusterError, is_root
from cluster.progress import elapsed_text, step
from cluster.real import Cluster
from cluster.story import Story
from cluster.target import RELEASE, SYSTEM_NAMESPACE, Target

CLUSTER, NAMESPACE, POOL = "demo", "modelpool-demo", "default"
#: Names in ``examples/``.
WORKER, MODEL = "minilm", "minilm-on-demand"
EXAMPLES = images.CHECKOUT / "examples"
CHECK = Path(__file__).with_name("demo_check.py")
IDLE_SECONDS, EVICT_SECONDS = 8, 16
READY_SECONDS, CHECK_SECONDS, END_SECONDS = 300.0, 240.0, 120.0
COSINE = 0.9999
OTHER_WAY = (
    "On a cluster that you have: make demo CLUSTER=current IMAGE_REPOSITORY=registry.example.com/modelpool "
    "(the README says how to build and push the images)."
)


class Phases:
    """What took how long."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before = time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - before

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {elapsed_text(seconds)}" for name, seconds in self.seconds.items())
        return f"{elapsed_text(time.monotonic() - self.started)} in all: {parts}"


def embedded(phases: Phases) -> Target:
    """The cluster of the demo on this machine, with the images of this checkout loaded."""
    preflight.require("make demo", OTHER_WAY, CLUSTER)
    cluster = Cluster(CLUSTER)
    with phases.phase("programs"):
        binaries.ensure(binaries.REAL_CLUSTER)
    with phases.phase("images"):
        built = images.build()
    with phases.phase("cluster"):
        cluster.up()
    with phases.phase("loading"), step("Loading the images into the cluster"):
        for image in built.values():
            cluster.load_image(image.oci_dir)
    return Target(
        title=f"Kubernetes {binaries.KUBERNETES} on this machine (cluster {CLUSTER})",
        prefix=tuple(cluster.command()),
        environment=cluster.environment(),
        operator_image=built[images.OPERATOR].ref,
        worker_image=built[images.WORKER].ref,
        model_source=f"oci://{built[images.MODEL].ref}",
        shell="make shell",
    )


def resources(source: str, folder: Path) -> None:
    """Write a kustomization of ``examples/`` with the demo's model source and its short times."""
    for example in EXAMPLES.glob("*.yaml"):
        (folder / example.name).write_text(example.read_text())
    times = {"idleTimeoutSeconds": IDLE_SECONDS, "evictAfterSeconds": EVICT_SECONDS, "minResidencySeconds": 0}
    patches = [
        {"target": {"kind": "ModelPool"}, "patch": _set("/spec", times)},
        {"target": {"kind": "ModelWorker"}, "patch": _set("/spec/model", {"source": source})},
        {"target": {"kind": "Model"}, "patch": _set("/spec/worker/model", {"source": source})},
    ]
    files = ["pool.yaml", "worker.yaml", "model.yaml"]
    kustomization = {"namespace": NAMESPACE, "resources": files, "patches": patches}
    (folder / "kustomization.yaml").write_text(json.dumps(kustomization))


def _set(path: str, values: dict[str, Any]) -> str:
    return json.dumps([{"op": "add", "path": f"{path}/{key}", "value": value} for key, value in values.items()])


def prepare(target: Target) -> None:
    """A namespace under the strictest Pod Security Standard, with a gateway, without what an earlier demo left."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    target.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
    target.install(f"gateway.namespaces={{{NAMESPACE}}}", "gateway.replicas=1")
    place = f"--namespace={NAMESPACE}"
    target.kubectl("delete", "mdl,mw,mpool", "--all", place, "--wait", "--timeout=120s", timeout=150.0)
    target.kubectl("delete", "pod", "ask", place, "--ignore-not-found", "--wait", "--timeout=60s")


def reserved(target: Target) -> int:
    """What the pool has handed out, MiB."""
    said = target.kubectl("get", f"mpool/{POOL}", f"--namespace={NAMESPACE}", "-o=json")
    return int(json.loads(said)["status"]["reserved"]["memoryMiB"])


def asking_pod(target: Target, url: str) -> dict[str, Any]:
    """A pod that asks for embeddings, as any other pod in the cluster would, and checks the answer by itself."""
    scheme, _, place = target.model_source.partition("://")
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if scheme == "oci":
        mounts.append({"name": "model", "mountPath": "/model"})
        volumes.append({"name": "model", "image": {"reference": place, "pullPolicy": "IfNotPresent"}})
    locked_down = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container = {
        "name": "ask",
        "image": target.worker_image,
        "command": ["python", "-c", CHECK.read_text(), url, _model_name(), "/model" if scheme == "oci" else place],
        "env": [{"name": "HF_HUB_DISABLE_TELEMETRY", "value": "1"}],
        "resources": {"requests": {"memory": "512Mi", "cpu": "100m"}, "limits": {"memory": "2Gi"}},
        "securityContext": locked_down,
        "volumeMounts": mounts,
    }
    who = {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": who,
        "containers": [container],
        "volumes": volumes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ask", "namespace": NAMESPACE}, "spec": spec}


def _model_name() -> str:
    """``spec.model.name`` of the example: the only ``name`` that is indented by four."""
    lines = (EXAMPLES / "worker.yaml").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("    name:"))


def ask(target: Target, story: Story, host: str) -> None:
    """Run the asking pod to its end, and show the answer and how near it is to the model run directly."""
    place, url = f"--namespace={NAMESPACE}", f"http://{host}/v1/embeddings"
    target.kubectl("apply", "-f", "-", stdin=json.dumps(asking_pod(target, url)))
    deadline = time.monotonic() + CHECK_SECONDS
    while (phase := target.kubectl("get", "pod/ask", place, "-o=jsonpath={.status.phase}")) not in (
        "Succeeded",
        "Failed",
    ):
        story.show()
        if time.monotonic() > deadline:
            events = target.kubectl("describe", "pod/ask", place)
            raise ClusterError(f"the asking pod did not end within {CHECK_SECONDS:g} s:\n{events[-1500:]}")
        time.sleep(0.5)
    story.show()
    said = target.kubectl("logs", "pod/ask", place)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    if phase == "Failed" or len(lines) != 2:
        raise ClusterError(f"the asking pod failed: {said.strip()[-1500:]}")
    facts, lowest = lines[0], min(lines[1]["cosines"])
    numbers = ", ".join(f"{number:.4f}" for number in facts["first"])
    print(f"  POST {url} from a pod, {facts['seconds']:.2f} s:")
    print(f"  {facts['vectors']} vectors of {facts['dimensions']} numbers: [{numbers}, …]")
    print(f"  cosine with the same model run directly, lowest of {facts['vectors']}: {lowest:.6f}", flush=True)
    if not lowest >= COSINE:
        raise ClusterError(f"the worker's vectors are not the model's: expected a cosine of {COSINE} or more")
    target.kubectl("delete", "pod/ask", place, "--wait")


def live_and_die(target: Target, phases: Phases) -> None:
    """Apply the example, and follow its worker to the end."""
    with tempfile.TemporaryDirectory(prefix="modelpool-demo-") as scratch:
        resources(target.model_source, Path(scratch))
        print(f"\n$ kubectl apply -f examples/     # here with short times: idle after {IDLE_SECONDS} s unused,")
        print(f"                                 # evicted after {EVICT_SECONDS} s; and source {target.model_source}")
        target.kubectl("apply", "-k", scratch)
    with Story(target, NAMESPACE, WORKER) as story:
        with phases.phase("apply to Ready"):
            story.until("Ready", READY_SECONDS)
        print(f"  pool {POOL}: {reserved(target)} MiB reserved\n", flush=True)
        with phases.phase("asking"):
            ask(target, story, f"{WORKER}.{NAMESPACE}:8080")
        print("\n  Nobody asks any more.", flush=True)
        with phases.phase("idle to Dead"):
            story.until("Dead", END_SECONDS)
    left = reserved(target)
    print(f"  pool {POOL}: {left} MiB reserved", flush=True)
    if left:
        raise ClusterError(f"the pool {POOL} still has {left} MiB reserved after its only worker is dead")


def call_by_name(target: Target, phases: Phases) -> None:
    """Ask the gateway for the example's Model, which has no worker: one comes for it."""
    print(
        f"\n  Model {MODEL} of the same examples: no worker, nothing reserved. Somebody calls it by its name:",
        flush=True,
    )
    with Story(target, NAMESPACE, f"{MODEL}-1") as story, phases.phase("cold call"):
        ask(target, story, f"modelpool-gateway.{NAMESPACE}")


def run(choice: str) -> None:
    """The whole demo."""
    phases = Phases()
    target = current.target() if choice == "current" else embedded(phases)
    print(f"\nOn {target.title}", flush=True)
    with phases.phase("install"), step("Installing the chart with helm"):
        prepare(target)
    try:
        live_and_die(target, phases)
        call_by_name(target, phases)
    except ClusterError:
        print(f"\nWhat the operator says:\n{target.operator_story()}", file=sys.stderr)
        raise
    print(f"\n✓ Done, {phases}")
    print(next_steps(target))


def next_steps(target: Target) -> str:
    """What the user can do now."""
    lines = [f"{target.shell:<16} a shell with kubectl and helm for this cluster; in it:"] if target.shell else []
    commands = [
        f"kubectl -n {NAMESPACE} describe mw {WORKER}",
        f"kubectl -n {NAMESPACE} get mdl,mw,mpool",
    ]
    lines += [f"    {command}" if target.shell else command for command in commands]
    lines += ["make demo        again: all is built and cached by now", "make demo-down   remove all of it"]
    return "\n".join(["", "Next:", *(f"  {line}" for line in lines)])


def down(choice: str) -> None:
    """Remove what the demo made."""
    if choice == "current":
        target = current.target()
        with step("Uninstalling (workers drain first)"):
            target.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s", timeout=200.0)
            target.uninstall()
        print(f"Release {RELEASE} is gone. The CRDs and the namespace {SYSTEM_NAMESPACE} are kept; remove them with:")
        print("\n".join(f"  {command}" for command in current.REMOVE_REST))
        return
    with step(f"Removing the cluster {CLUSTER}"):
        Cluster(CLUSTER).down()


def shell() -> int:
    """A shell inside the cluster's network."""
    cluster = Cluster(CLUSTER)
    if not is_root() or not cluster.running():
        raise ClusterError("make shell needs root and the running cluster of the demo; start it with: make demo")
    os.environ["PS1"] = f"({CLUSTER}) \\w $ "
    return cluster.execute([os.environ.get("SHELL", "/bin/sh")])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m cluster.demo", description=__doc__)
    parser.add_argument("what", choices=["run", "down", "shell"], nargs="?", default="run")
    parser.add_argument("--cluster", choices=["embedded", "current"], default="embedded")
    options = parser.parse_args()
    try:
        if options.what == "shell":
            return shell()
        (run if options.what == "run" else down)(options.cluster)
    except ClusterError as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what runs is used by the next run, or removed by: make demo-down", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
