"""Who may look: a browser on this machine, asked for by a name of this machine; thinks only.

What is shown is for the developer at this keyboard.  A proxy on this machine makes everybody look local, and so does
a name that an attacker's server resolves to 127.0.0.1 (DNS rebinding); both are refused.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

Headers = Mapping[bytes, list[bytes]]

_FORWARDED = re.compile(
    rb"x-forwarded(-.*)?|forwarded|via|(x-)?real-ip|(x-|x-cluster-|true-)?client-ip|.*-connecting-ip"
)
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::\d{1,5})?")

HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Of every response."""


def refusal(scope: Mapping[str, Any]) -> str | None:
    """Why a request is not answered; None for one that is."""
    headers = _headers(scope)
    if not _is_loopback(scope.get("client")):
        return "The inspector answers clients on its own machine only."
    # What nginx does by itself: HTTP/1.0 with a Host of its own, and no header that tells of it.
    if scope.get("http_version") == "1.0" or any(_FORWARDED.fullmatch(name) for name in headers):
        return "The inspector does not answer through a proxy."
    if not _is_local_name(headers.get(b"host", [])):
        return "The inspector answers to localhost and 127.0.0.1 only."
    if scope["method"] in ("GET", "HEAD"):
        return _refusal_of_reading(headers)
    return None if _is_same_origin(scope, headers) else "Only the inspector's own pages may ask for this."


def _headers(scope: Mapping[str, Any]) -> Headers:
    found: dict[bytes, list[bytes]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.lower(), []).append(value)
    return found


def _is_loopback(client: Any) -> bool:
    """A Unix socket has no client: whoever is behind it is not known."""
    return bool(client) and _is_loopback_address(str(client[0]))


def _is_loopback_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)  # ::ffff:127.0.0.1 is loopback from Python 3.13 on only
    return (mapped or address).is_loopback


def _is_local_name(hosts: list[bytes]) -> bool:
    if len(hosts) != 1 or not (found := _HOST.fullmatch(hosts[0].decode("latin-1"))):
        return False
    name = found["name"].lower()
    return name == "localhost" or name.endswith(".localhost") or _is_loopback_address(name.strip("[]"))


def _refusal_of_reading(headers: Headers) -> str | None:
    """Another site may link here, and nothing more: no picture, script or frame of it may make the panel work."""
    site, mode = headers.get(b"sec-fetch-site", []), headers.get(b"sec-fetch-mode", [])
    if site and site != [b"same-origin"] and site != [b"none"] and mode != [b"navigate"]:
        return "Another site may not read the inspector's pages."
    return None


def _is_same_origin(scope: Mapping[str, Any], headers: Headers) -> bool:
    """A browser says so in Sec-Fetch-Site; an old one in Origin, which `no-referrer` makes `null` for new ones."""
    site, origin = headers.get(b"sec-fetch-site", []), headers.get(b"origin", [])
    own = f"{scope.get('scheme', 'http')}://".encode() + headers[b"host"][0]
    if site:
        return site == [b"same-origin"] and origin in ([], [b"null"], [own])
    return origin == [own]
