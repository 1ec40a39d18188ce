"""``modelpool-gateway``: settings, signals, exit status; nothing else."""

import asyncio
import gc
import logging
import signal
import sys

import uvloop

from modelpool_gateway.gateway import Gateway
from modelpool_gateway.metrics import GatewayMetrics
from modelpool_gateway.server import listen
from modelpool_gateway.settings import GatewaySettings
from modelpool_operator.domain.errors import ApiError
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.logs import send_logs

_GC_ALLOCATIONS = 20_000


async def run(settings: GatewaySettings) -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, stop.set)
    # almost everything that is made lives for one request only, and the rest for ever: looking for cycles less often
    # saves more time than it costs memory
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS)
    metrics = GatewayMetrics()
    client = await KubeClient.connect(metrics.observe_request, agent="modelpool-gateway")
    try:
        listener, admin_listener = listen(settings.host, settings.port), listen(settings.host, settings.admin_port)
        await Gateway(settings, client, metrics).run(listener, admin_listener, stop)
    finally:
        await client.close()


def main() -> None:
    """Run the command line; it takes no arguments, settings come from the environment."""
    settings = GatewaySettings()
    send_logs(settings.log_level, settings.log_format, quiet=("aiohttp", "asyncio", "uvicorn"))
    # what it says of answers that are cut on purpose is said by us where it matters
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except (ApiError, OSError) as error:
        sys.exit(f"modelpool-gateway: {error}")


if __name__ == "__main__":
    main()
