"""The sockets on which the project's HTTP servers listen."""

import socket


def open_listener(host: str, port: int, backlog: int) -> socket.socket:
    """Open a listening socket; an empty host means every address, IPv6 included where the machine has it.

    Raises ``OSError``.
    """
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named; else answers wait 40 ms for an ACK
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
