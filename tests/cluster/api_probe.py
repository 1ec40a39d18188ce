"""One question to an API server, asked over TLS with a client certificate; needs no Kubernetes client."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any


def get(address: str, port: int, path: str, pki: Path) -> tuple[int, Any]:
    """The HTTP status and the JSON (None where it is none) of a GET as administrator; status 0: no answer."""
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
    connection = http.client.HTTPSConnection(address, port, timeout=5, context=context)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()
    try:
        return response.status, json.loads(body)
    except ValueError:
        return response.status, None
