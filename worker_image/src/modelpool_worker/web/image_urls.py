"""What an endpoint that takes images fetches them with."""

from modelpool_worker.imaging.addresses import parse_networks
from modelpool_worker.imaging.fetch import ImageFetcher
from modelpool_worker.imaging.sources import parse_hosts
from modelpool_worker.settings import WorkerSettings


def image_fetcher(settings: WorkerSettings) -> ImageFetcher:
    """Return the fetcher that the settings describe; one that fetches nothing costs nothing."""
    return ImageFetcher(
        parse_hosts(settings.image_url_hosts),
        parse_networks(settings.image_url_refused_networks),
        # what is fetched counts as if it had come in the body
        max_bytes=settings.max_body_bytes,
    )
