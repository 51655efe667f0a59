"""A gateway's address as a person writes it."""

import pytest

from cspd.errors import CspError
from cspd.wire.address import Address

pytestmark = pytest.mark.pure


@pytest.mark.parametrize(
    ("url", "address", "name"),
    [
        ("ws://host:8765", Address("host", 8765, False, ""), "host:8765"),
        ("ws://host", Address("host", 8765, False, ""), "host:8765"),
        ("http://10.0.0.1:80/", Address("10.0.0.1", 80, False, ""), "10.0.0.1:80"),
        ("wss://host/csp/events", Address("host", 443, True, "/csp"), "host:443"),
        ("https://[::1]:99", Address("::1", 99, True, ""), "[::1]:99"),
    ],
)
def test_addresses_are_read(url: str, address: Address, name: str) -> None:
    assert Address.parse(url) == address
    assert address.name == name


@pytest.mark.parametrize(
    "url",
    ["", "host:8765", "ws://", "ftp://host", "ws://host:x", "ws://host:70000", "ws://me:secret@host", "ws://h?a=b"],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(CspError) as refusal:
        Address.parse(url)
    assert refusal.value.code == "usage"
