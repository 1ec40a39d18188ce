"""The end of a server whose test is over."""

import asyncio

import uvicorn


async def cut_off(server: uvicorn.Server, serving: "asyncio.Task[None]") -> None:
    """End it at once; its own way of ending looks round ten times a second, which is most of a test's time."""
    serving.cancel()
    await asyncio.wait([serving])
    for listening in getattr(server, "servers", ()):
        listening.close()
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    under_way = list(server.server_state.tasks)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    if not serving.cancelled():
        serving.result()
