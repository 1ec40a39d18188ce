"""Who stands between client and upstream: ours, LiteLLM's proxy, HAProxy, nginx, and nobody. Each has one core."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import peer_environments
from bench.gateway.programs import PATH
from bench.gateway.site import NAMESPACE
from bench.place import Place
from bench.servers import Program
from cluster import debian

#: The one that answers at once and the one that streams; both are called by name where somebody reads the name.
WHOLE, STREAM = "whole", "stream"
OURS, DIRECT, LITELLM, HAPROXY, NGINX = "ours", "no proxy", "LiteLLM", "HAProxy", "nginx"
HEALTH = "/health"
_CONNECTIONS = 8192


@dataclass(frozen=True)
class Contender:
    """A way to the upstreams: a program, None where there is none, and the two URLs."""

    name: str
    program: Program | None
    whole_url: str
    stream_url: str


@dataclass(frozen=True)
class Upstreams:
    """Ports of loopback; the one that streams listens at all of its addresses."""

    whole: int
    stream: int
    stream_addresses: tuple[str, ...]

    def workers(self) -> dict[str, list[str]]:
        """Model → the endpoints of its workers."""
        streams = [f"http://{address}:{self.stream}" for address in self.stream_addresses]
        return {WHOLE: [f"http://127.0.0.1:{self.whole}"], STREAM: streams}


def contenders(
    place: Place, upstreams: Upstreams, kubeconfig: Path, core: int, ports: Sequence[int]
) -> list[Contender]:
    """All of them, with their defaults but for what is named; each needs two ``ports`` and one is used twice."""
    ours, ours_admin, litellm, haproxy, haproxy_stream, nginx, nginx_stream = ports
    return [
        Contender(DIRECT, None, _url(upstreams.whole), _url(upstreams.stream)),
        _named(_ours(place, kubeconfig, core, ours, ours_admin)),
        _named(_litellm(place, upstreams, core, litellm)),
        Contender(
            HAPROXY, _haproxy(place, upstreams, core, haproxy, haproxy_stream), _url(haproxy), _url(haproxy_stream)
        ),
        Contender(NGINX, _nginx(place, upstreams, core, nginx, nginx_stream), _url(nginx), _url(nginx_stream)),
    ]


def pinned(core: int, command: Sequence[str]) -> tuple[str, ...]:
    """The command on that core alone."""
    return ("taskset", "--cpu-list", str(core), *command)


def nginx_command(folder: Path, name: str, servers: str) -> tuple[str, ...]:
    """One nginx with one worker process, everything that it writes in a folder of its own."""
    home = folder / name
    home.mkdir()
    temporary = "".join(f"{kind}_temp_path {home};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (home / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; pid {home}/pid; worker_rlimit_nofile {4 * _CONNECTIONS};\n"
        f"events {{ worker_connections {_CONNECTIONS}; }}\n"
        f"http {{ access_log off; keepalive_requests 1000000000; {temporary}\n{servers}}}\n"
    )
    return (*debian.command("nginx"), "-p", str(home), "-c", str(home / "nginx.conf"), "-e", "stderr")


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{PATH}"


def _named(program: Program) -> Contender:
    """One that tells the upstreams apart by the name of the model."""
    return Contender(program.name, program, program.url(PATH), program.url(PATH))


def _ours(place: Place, kubeconfig: Path, core: int, port: int, admin: int) -> Program:
    settings = {
        "NAMESPACE": NAMESPACE,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "ADMIN_PORT": str(admin),
        "LOG_LEVEL": "warning",
    }
    environment = {f"MODELPOOL_GATEWAY_{name}": value for name, value in settings.items()}
    command = pinned(core, (str(place.python), "-m", "modelpool_gateway"))
    # it answers once it knows all workers
    return Program(OURS, command, port, "/v1/models", {**environment, "KUBECONFIG": str(kubeconfig)})


def _litellm(place: Place, upstreams: Upstreams, core: int, port: int) -> Program:
    program = peer_environments.environment("litellm", place.python) / "bin/litellm"
    models = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{name}", "api_base": f"http://127.0.0.1:{to}/v1", "api_key": "none"},
        }
        for name, to in ((WHOLE, upstreams.whole), (STREAM, upstreams.stream))
    ]
    config = place.scratch / "litellm.yaml"
    config.write_text(json.dumps({"model_list": models}))  # JSON is YAML
    command = pinned(core, (str(program), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)))
    environment = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # not from the internet
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # nobody here looks at keys
    }
    return Program(LITELLM, command, port, "/health/liveliness", environment)


def _haproxy(place: Place, upstreams: Upstreams, core: int, port: int, stream_port: int) -> Program:
    """HAProxy with one thread; it reads no body, and waits for no second frame before it passes the first one on."""
    parts = "".join(
        f"frontend {name}\n bind 127.0.0.1:{at}\n http-request return status 200 if {{ path {HEALTH} }}\n"
        f" default_backend {name}-upstream\n"
        f"backend {name}-upstream\n http-reuse always\n option http-no-delay\n server upstream 127.0.0.1:{to}\n"
        for name, at, to in ((WHOLE, port, upstreams.whole), (STREAM, stream_port, upstreams.stream))
    )
    config = place.scratch / "haproxy.cfg"
    config.write_text(
        f"global\n nbthread 1\n maxconn {_CONNECTIONS}\n"
        "defaults\n mode http\n timeout connect 3s\n timeout client 600s\n timeout server 600s\n" + parts
    )
    command = pinned(core, (*debian.command("haproxy"), "-db", "-f", str(config)))
    return Program(HAPROXY, command, port, HEALTH)


def _nginx(place: Place, upstreams: Upstreams, core: int, port: int, stream_port: int) -> Program:
    """An nginx that keeps its connections to the upstreams, and buffers no stream."""
    servers = "".join(
        f"upstream {name} {{ server 127.0.0.1:{to}; keepalive 512; keepalive_requests 1000000000; }}\n"
        f"server {{ listen 127.0.0.1:{at} backlog=4096; location = {HEALTH} {{ return 200; }}\n"
        f' location / {{ proxy_pass http://{name}; proxy_http_version 1.1; proxy_set_header Connection "";'
        f" proxy_buffering {buffering}; }} }}\n"
        for name, at, to, buffering in (
            (WHOLE, port, upstreams.whole, "on"),
            (STREAM, stream_port, upstreams.stream, "off"),
        )
    )
    return Program(NGINX, pinned(core, nginx_command(place.scratch, "nginx-proxy", servers)), port, HEALTH)
