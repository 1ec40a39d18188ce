"""The operator is light: no torch, and its decisions need no client of Kubernetes."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "diffusers", "modelpool_worker", "starlette", "uvicorn")
EDGES = ("kubernetes", "kopf", "aiohttp", "asyncio", "modelpool_operator.kube", "modelpool_operator.runtime")
DOMAIN = ", ".join(
    f"modelpool_operator.domain.{name}"
    for name in ("admission", "ledger", "mirror", "plan", "pods", "room", "status", "transitions", "worker_plan")
)


def loaded(modules: str) -> set[str]:
    """What a fresh interpreter has loaded after importing these."""
    code = f"import sys, {modules}\nprint(*sorted(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(found.stdout.split())


@pytest.mark.parametrize(
    ("modules", "needed", "forbidden"),
    [
        pytest.param("modelpool_operator.__main__", "kopf", HEAVY, id="operator-without-torch"),
        pytest.param(DOMAIN, "modelpool_api.lifecycle", (*HEAVY, *EDGES), id="decisions-without-kubernetes"),
        pytest.param(
            "modelpool_gateway.__main__",
            "uvicorn",
            (*(set(HEAVY) - {"uvicorn"}), "kopf", "modelpool_operator.runtime"),
            id="gateway-without-torch-and-kopf",
        ),
    ],
)
def test_a_fresh_interpreter_loads_only_what_it_needs(modules, needed, forbidden):
    found = loaded(modules)
    assert needed in found
    assert not found & set(forbidden)
