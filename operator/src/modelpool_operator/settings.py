"""The operator's settings, read once from the environment (``MODELPOOL_OPERATOR_…``)."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from modelpool_api import Capability


class OperatorSettings(BaseSettings):
    """What an installation decides; what a pool decides is in ModelPool."""

    model_config = SettingsConfigDict(env_prefix="MODELPOOL_OPERATOR_", frozen=True)

    namespace: str = Field(default="modelpool-system", description="where the operator's own Lease lives")
    pod_name: str = Field(default="modelpool-operator", description="identity in the Lease and in Events")
    lease_name: str = "modelpool-operator"
    watch_namespaces: tuple[str, ...] = Field(default=(), description="JSON list; empty means all namespaces")

    worker_image: str = Field(default="modelpool-worker:dev", description="image of every capability not listed below")
    worker_images: dict[Capability, str] = Field(default_factory=dict, description="JSON: capability → image")
    worker_image_pull_policy: str = "IfNotPresent"
    hf_endpoint: str = Field(default="", description="model hub or mirror for hf:// sources; empty: huggingface.co")
    image_url_hosts: str = Field(
        default="", description="hosts that workers fetch clients' images from, comma-separated; empty: none"
    )
    image_url_refused_networks: str = Field(
        default="", description="networks that they never fetch from, comma-separated, besides those not public"
    )
    closed_inference: bool = Field(
        default=False, description="workers answer only requests that carry their pool's token, as gateways' do"
    )

    reconcile_workers: int = Field(default=16, ge=1, le=256, description="reconciles that may run at once")
    sweep_seconds: float = Field(default=30.0, gt=0, description="period of the full LIST that is the truth")
    maintenance_seconds: float = Field(default=5.0, gt=0, description="period of the pass that evicts idle workers")
    status_writes_per_second: float = Field(default=50.0, gt=0, description="budget of load flips and gauges")
    lease_seconds: float = Field(default=15.0, ge=2, description="a leader silent for this long is replaced")

    metrics_port: int = Field(default=8080, ge=0, le=65535)
    probe_port: int = Field(default=8081, ge=0, le=65535)
    log_level: str = Field(default="info", pattern="^(debug|info|warning|error)$")
    log_format: str = Field(default="json", pattern="^(json|console)$")
