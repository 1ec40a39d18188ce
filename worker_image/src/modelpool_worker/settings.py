"""The worker's settings, read once from the environment (``MODELPOOL_…``, the names of ``modelpool_api.pod``)."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelpool_api import pod
from modelpool_api.wire import MAX_MESSAGE_CHARS
from modelpool_worker.imaging.addresses import parse_networks
from modelpool_worker.imaging.sources import parse_hosts

_DAY = 86_400.0


class WorkerSettings(BaseSettings):
    """What one worker serves and within which bounds. Every number has a lower and an upper bound."""

    model_config = SettingsConfigDict(env_prefix=pod.ENV_PREFIX, frozen=True)

    worker_id: str = Field(min_length=1, max_length=64, description="uid of the ModelWorker")
    model_name: str = Field(min_length=1, max_length=253, description="what requests write in `model`")
    capability: str = Field(min_length=1, max_length=64)
    model_source: str = Field(min_length=1, max_length=2048)
    model_revision: str = Field(default="", max_length=255)
    model_path: str = Field(default="", max_length=4096, description="where a pvc:// or oci:// source is mounted")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    gpus: int = Field(default=0, ge=0, le=64)
    idle_timeout_seconds: float = Field(default=300.0, ge=0, le=365 * _DAY)
    drain_timeout_seconds: float = Field(default=30.0, ge=0, le=_DAY)
    linger_seconds: float = Field(default=pod.LINGER_SECONDS, ge=0, le=60)

    host: str = Field(default="", max_length=255, description="address to listen on; empty: all, IPv6 included")
    inference_port: int = Field(default=pod.INFERENCE_PORT, ge=0, le=65535)
    lifecycle_port: int = Field(default=pod.LIFECYCLE_PORT, ge=0, le=65535)
    closed_inference: bool = Field(default=False, description="the inference port, too, asks for the pool's token")
    token_dir: Path = Path(pod.TOKEN_DIR)
    cache_dir: Path = Path(pod.CACHE_DIR)
    termination_file: Path = Path(pod.TERMINATION_FILE)

    max_queued_requests: int = Field(default=256, ge=1, le=100_000, description="admitted and not yet running")
    max_queued_inputs: int = Field(default=8192, ge=1, le=1_000_000, description="inputs that have not run yet")
    max_batch_items: int = Field(default=64, ge=1, le=4096)
    max_batch_tokens: int = Field(
        default=16_384, ge=1, le=16_777_216, description="padded size of a batch: longest item x number of items"
    )
    max_body_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=256 * 1024 * 1024)
    max_bodies_bytes: int = Field(
        default=64 * 1024 * 1024,
        ge=1024,
        le=4 * 1024**3,
        description="of all requests together: their bodies, and images that were fetched for them",
    )
    body_timeout_seconds: float = Field(default=30.0, gt=0, le=600, description="for a client to send its request")
    answer_timeout_seconds: float = Field(default=60.0, gt=0, le=600, description="for a client to take its answer")
    heartbeat_seconds: float = Field(
        default=15.0, gt=0, le=600, description="silence in a stream after which a comment is sent"
    )
    max_image_pixels: int = Field(default=25_000_000, ge=1024, le=100_000_000, description="width x height of an image")
    image_url_hosts: str = Field(
        default="",
        max_length=65_536,
        description="from where images may be fetched, such as images.example; empty: not",
    )
    image_url_refused_networks: str = Field(
        default="",
        max_length=16_384,
        description="further networks that no image is fetched from, such as 2001:db8::/32",
    )
    threads: int = Field(default=0, ge=0, le=1024, description="CPU threads of the model; 0: as many as it may use")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("image_url_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        parse_hosts(value)
        return value

    @field_validator("image_url_refused_networks")
    @classmethod
    def _networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @property
    def token_file(self) -> Path:
        """The file with the pool's bearer token."""
        return self.token_dir / pod.TOKEN_FILE


def settings_sentence(errors: list[str]) -> str:
    """Say which settings are wrong, without repeating their values."""
    names = ", ".join(f"{pod.ENV_PREFIX}{name.upper()}" for name in errors)
    text = f"the worker's settings are wrong: {names}; expected for example {pod.ENV_MODEL_SOURCE}=file:///models/m"
    return text[:MAX_MESSAGE_CHARS]
