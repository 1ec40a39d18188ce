"""The gateway's settings, read once from the environment (``MODELPOOL_GATEWAY_…``)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

_MIB = 1024 * 1024


class GatewaySettings(BaseSettings):
    """What an installation decides; seconds, bytes and counts."""

    model_config = SettingsConfigDict(env_prefix="MODELPOOL_GATEWAY_", frozen=True)

    namespace: str = Field(default="default", description="the one whose models it serves, its own")
    pod_name: str = Field(default="modelpool-gateway", description="holder of the demand Leases that it writes")
    host: str = Field(default="", description="address to listen at; empty: all")
    port: int = Field(default=8080, ge=0, le=65535)
    admin_port: int = Field(default=8081, ge=0, le=65535, description="/healthz, /readyz, /metrics")

    keys_folder: str = Field(default="", description="a mounted Secret of API keys; empty: no key is needed")
    tokens_folder: str = Field(default="", description="holds POOL/token for pools whose workers' ports are closed")

    max_body_bytes: int = Field(default=8 * _MIB, ge=1024, le=256 * _MIB)
    max_bodies_bytes: int = Field(default=64 * _MIB, ge=1024, le=16 * 1024 * _MIB, description="of all held requests")
    body_seconds: float = Field(default=30.0, gt=0, le=600, description="for a client to send its body")
    client_seconds: float = Field(default=60.0, gt=0, le=600, description="for a client to take what was sent to it")
    answer_seconds: float = Field(default=600.0, gt=0, le=86_400, description="for a worker's next byte")

    hold_seconds: float = Field(default=300.0, gt=0, le=3600, description="for a worker to be ready")
    progress_seconds: float = Field(default=3.0, gt=0, le=60, description="from comment to comment while held")
    max_held_per_model: int = Field(default=2000, ge=1, le=100_000)
    max_held: int = Field(default=5000, ge=1, le=100_000)
    worker_in_flight: int = Field(
        default=128, ge=1, le=100_000, description="requests that one worker gets at once; others wait for a place"
    )

    lame_duck_seconds: float = Field(
        default=3.0, ge=0, le=60, description="from being told to stop to taking nothing new: endpoints are updated"
    )
    drain_seconds: float = Field(default=60.0, gt=0, le=3600, description="for answers under way to be finished")

    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    log_format: str = Field(default="json", pattern="^(json|console)$")
