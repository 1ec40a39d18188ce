"""Which IP addresses an image may be fetched from. Pure."""

import ipaddress
from collections.abc import Iterable
from typing import Final

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAX_NETWORKS: Final = 256

#: What is not the public internet, written out: Python's own list differs between its versions.
_REFUSED_IPV4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # a cloud's own services, at a public-looking address
        "169.254.0.0/16",  # link-local, metadata services
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
#: Everything else is not routed in public: loopback, unique local, link-local, multicast, mapped and translated IPv4.
_PUBLIC_IPV6: Final = ipaddress.IPv6Network("2000::/3")
_REFUSED_IPV6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
)


def is_public(text: str, refused: Iterable[Network] = ()) -> bool:
    """Return whether this is the address of a public host that is in none of the ``refused`` networks."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        public = not any(address in network for network in _REFUSED_IPV4)
    else:
        public = address in _PUBLIC_IPV6 and not any(address in network for network in _REFUSED_IPV6)
    return public and address.is_global and not any(address in network for network in refused)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Read the setting that lists further networks nothing is fetched from, separated by commas.

    Such as those of a cluster's pods and services where they have public addresses. Raises ``ValueError``.
    """
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    if len(entries) > _MAX_NETWORKS:
        raise ValueError(f"too many networks; expected at most {_MAX_NETWORKS}")
    try:
        return tuple(ipaddress.ip_network(entry) for entry in entries)
    except ValueError:
        raise ValueError("an entry is no network; expected for example 10.0.0.0/8 or 2001:db8::/32") from None
