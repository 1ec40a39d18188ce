"""``modelpool-operator run`` and ``modelpool-operator drain``: wiring, nothing else."""

import argparse
import asyncio
import sys

import kopf
from prometheus_client import start_http_server

from modelpool_operator.domain.errors import ApiError
from modelpool_operator.handlers.logs import configure_logging, is_answer
from modelpool_operator.handlers.watches import build_registry
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.metrics import OperatorMetrics
from modelpool_operator.runtime.controller import Controller
from modelpool_operator.runtime.definitions import wait_for_crds
from modelpool_operator.runtime.drain import drain
from modelpool_operator.settings import OperatorSettings


async def run(settings: OperatorSettings) -> None:
    """Run the operator until it is told to stop."""
    metrics = OperatorMetrics()
    client = await KubeClient.connect(metrics.observe_request)
    server, _ = start_http_server(settings.metrics_port, registry=metrics.registry)
    try:
        await wait_for_crds(client, next(iter(settings.watch_namespaces), None))
        controller = Controller(client, settings, metrics)
        stop = asyncio.Event()
        work = asyncio.create_task(controller.run(), name="controller")
        work.add_done_callback(lambda _: stop.set())

        async def end() -> None:
            work.cancel()
            await asyncio.wait([work])
            await controller.close()

        try:
            await kopf.operator(
                registry=build_registry(controller, end),
                standalone=True,
                clusterwide=not settings.watch_namespaces,
                namespaces=settings.watch_namespaces,
                liveness_endpoint=f"http://0.0.0.0:{settings.probe_port}/healthz",
                stop_flag=stop,
            )
        finally:
            await end()
            if not work.cancelled() and (error := work.exception()) is not None:
                raise error  # it never ends by itself
    finally:
        server.shutdown()
        await client.close()


async def _drain(settings: OperatorSettings, seconds: float) -> bool:
    client = await KubeClient.connect()
    try:
        return await drain(client, settings.watch_namespaces, seconds)
    finally:
        await client.close()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="modelpool-operator", description="Runs pools of model workers.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="run the operator")
    draining = commands.add_parser("drain", help="stop every worker and remove the finalizers, before an uninstall")
    draining.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS")
    arguments = parser.parse_args()
    settings = OperatorSettings()
    configure_logging(settings.log_level, settings.log_format)
    try:
        if arguments.command == "run":
            asyncio.run(run(settings))
        else:
            sys.exit(0 if asyncio.run(_drain(settings, arguments.timeout)) else 1)
    except ApiError as error:
        sys.exit(f"modelpool-operator: {error}")
    except Exception as error:
        if not is_answer(error):
            raise
        # such as when our definitions are deleted: whoever is started next waits until they are there
        sys.exit(f"modelpool-operator: a watch cannot go on: {error}"[:500])


if __name__ == "__main__":
    main()
