"""Why settings of addresses and mail are refused; what can be is written as requests have it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.core.addresses import normal_host, normal_host_pattern, normal_network, normal_origin
from app.core.validators import is_domain, is_mailbox

# What is wanted, by setting; nothing where another check tells.
_FORMS: Mapping[str, tuple[Callable[[str], str], str]] = {
    "trusted_proxies": (normal_network, ""),
    "cors_origins": (normal_origin, "origins like https://app.example.com, never '*'"),
    "trusted_hosts": (
        normal_host_pattern,
        "host names like api.example.com, *.example.com or [::1], without scheme and port",
    ),
}
# Ports where servers begin with TLS, and where they never do (RFC 8314 §3.3, RFC 6409 §3.1).
_TLS_PORT, _PLAIN_PORTS = 465, {25, 587}


def bring_into_form(settings: Any) -> Iterator[str]:
    """Write the settings that are compared with requests as those have it, and yield the reasons
    against what would never be equal to any."""
    for name, (form, wanted) in _FORMS.items():
        try:
            setattr(settings, name, [form(each) for each in getattr(settings, name)])
        except ValueError:
            if wanted:
                yield f"{name.upper()} must list {wanted}"


def unusable_mail(settings: Any) -> Iterator[str]:
    """Yield the reasons why no mail could be sent."""
    if not is_mailbox(settings.mail_from):
        yield "MAIL_FROM must be an address, like Cimiento <no-reply@example.com>"
    domains = [each.lower().removeprefix("@") for each in settings.special_use_domains]
    settings.special_use_domains = domains
    if not all(map(is_domain, domains)):
        yield "SPECIAL_USE_DOMAINS must list domains, like company.local"
    if settings.smtp_host is not None:
        yield from _unusable_server(settings)


def _unusable_server(settings: Any) -> Iterator[str]:
    try:
        normal_host(settings.smtp_host)
    except ValueError:
        yield "SMTP_HOST must be a host name or an address alone: the port goes into SMTP_PORT"
    if settings.smtp_username and not settings.smtp_password:
        yield "SMTP_USERNAME needs SMTP_PASSWORD"
    if settings.smtp_password and not settings.smtp_username:
        yield "SMTP_PASSWORD needs SMTP_USERNAME"
    begins_with_tls = settings.smtp_tls == "tls"
    if settings.smtp_port == _TLS_PORT and not begins_with_tls:
        yield f"SMTP_PORT={_TLS_PORT} needs SMTP_TLS=tls"
    if settings.smtp_port in _PLAIN_PORTS and begins_with_tls:
        yield f"SMTP_TLS=tls needs SMTP_PORT={_TLS_PORT}; port {settings.smtp_port} is for starttls"
