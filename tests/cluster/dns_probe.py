"""One question to a DNS server: the machine's own resolver does not know the cluster's."""

import socket
import struct

QUERY_ID = 0x6D70
RECURSION_DESIRED = 0x0100
TYPE_A, CLASS_IN = 1, 1
HEADER = struct.Struct("!6H")


def question(name: str) -> bytes:
    """A query for the IPv4 address of a name such as ``web.default.svc.cluster.local``."""
    labels = b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.rstrip(".").split("."))
    return HEADER.pack(QUERY_ID, RECURSION_DESIRED, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", TYPE_A, CLASS_IN)


def answers(reply: bytes) -> int:
    """How many records a reply to our question has; 0 for an error, a foreign or a broken reply."""
    if len(reply) < HEADER.size:
        return 0
    identity, flags, _, count, _, _ = HEADER.unpack_from(reply)
    return count if identity == QUERY_ID and flags & 0x000F == 0 else 0


def resolves(server: str, name: str, seconds: float = 1.0) -> bool:
    """Whether the server at that address (port 53, UDP) knows an address of the name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect((server, 53))
            connection.send(question(name))
            return answers(connection.recv(1500)) > 0
        except OSError:
            return False
