"""Where a proxy connects to: addresses by the registries, authorities in one form, a name only with all it leads to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import assume, given, strategies as st

from alcove.rights import hosts
from alcove.rights.hosts import Host
from alcove.sandbox.destinations import RefusalError, check_listed, checked, special, target

PUBLIC = ("1.1.1.1", "8.8.8.8", "151.101.0.223", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e", "64:ff9b::808:808")
KEPT_OFF = {
    "loopback": ("127.0.0.1", "127.255.255.254", "::1"),
    "link-local, where clouds keep metadata": ("169.254.169.254", "64:ff9b::a9fe:a9fe"),
    "private": ("10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00:ec2::254", "fc00::1"),
    "private to a provider": ("100.64.0.1", "100.100.100.200"),
    "this machine": ("0.0.0.0", "0.1.2.3"),
    "link-local": ("fe80::1", "fe80::1%eth0"),
    "multicast": ("224.0.0.1", "239.1.1.1", "ff02::1"),
    "an IPv4 address in disguise": ("::ffff:127.0.0.1", "::ffff:8.8.8.8", "::ffff:a9fe:a9fe"),
    "a tunnel": ("2002:7f00:1::", "2002:a00:1::1"),
    "reserved": (
        *("240.0.0.1", "255.255.255.255", "192.0.0.192", "198.18.0.1", "203.0.113.9", "192.88.99.1"),
        *("::", "::7f00:1", "2001::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "64:ff9b:1::1", "4000::1"),
    ),
}


@pytest.mark.parametrize("text", PUBLIC)
def test_a_public_address_may_be_reached_by_a_name(text: str) -> None:
    assert special(ipaddress.ip_address(text)) == ""
    assert checked(["x.org:443"], Host("x.org", 443), [text]) == [text]


@pytest.mark.parametrize(("what", "text"), [(what, text) for what, texts in KEPT_OFF.items() for text in texts])
def test_any_other_address_has_to_be_listed_itself(what: str, text: str) -> None:
    address = ipaddress.ip_address(text)
    assert special(address) == what
    asked = Host("x.org", 443)
    for found in ([text], [PUBLIC[0], text], [text, PUBLIC[0]]):
        with pytest.raises(RefusalError) as refused:
            checked(["x.org:443", "*.org"], asked, found)
        assert refused.value.code == "address"
    if "%" not in text:
        shown = f"[{address}]" if address.version == 6 else text
        assert checked(["x.org:443", f"{shown}:443"], asked, [text]) == [text]
        with pytest.raises(RefusalError):
            checked(["x.org:443", f"{shown}:80"], asked, [text])


@given(st.ip_addresses())
def test_nothing_passes_for_public_that_python_takes_for_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    assume(address not in ipaddress.ip_network("64:ff9b::/96"))
    if not special(address):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_of_an_ipv6_one_is_no_way_around(address: ipaddress.IPv4Address) -> None:
    translated = ipaddress.IPv6Address((0x64FF9B << 96) | int(address))
    assert special(translated) == special(address)
    assert special(ipaddress.IPv6Address((0xFFFF << 32) | int(address)))
    assert special(ipaddress.IPv6Address(int(address)))
    assert special(ipaddress.IPv6Address((0x2002 << 112) | (int(address) << 80)))


ODD = (
    *("127.1:80", "2130706433:80", "0x7f000001:80", "0x7f.0.0.1:80", "0177.0.0.1:80", "127.0.0.1.:80x", "1.2.3.4.5:80"),
    *("127.000.000.001:80", "[::1%25eth0]:80", "[127.0.0.1]:80", "::1:80", "[::1:80", "x.org:0", "x.org:65536"),
    *(
        "x.org:+80",
        "x.org:80 ",
        " x.org:80",
        "x.org:8e1",
        "x.org:\u0668\u0660",
        "x..org:80",
        ".x.org:80",
        "-x.org:80",
        ":80",
    ),
    *("user@x.org:80", "x.org@127.0.0.1:80", "x.org\\@127.0.0.1:80", "x.org%00.y.org:80", "x.org\x00:80", "x.org\t:80"),
    *(
        "*.x.org:80",
        "x.org/:80",
        "x.org#y:80",
        "x.org?y:80",
        "\u2179.org:80",
        "x\u3002org:80",
        f"{'a' * 64}.org:80",
        "x:80:80",
    ),
    *(f"{'a.' * 126}org:80", "x.0x7f:80", "a.1:80", ""),
)


@pytest.mark.parametrize("text", ODD)
def test_an_authority_that_could_be_read_in_two_ways_names_nothing(text: str) -> None:
    assert target(text) is None
    assert target(text, 80) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x.org:443", Host("x.org", 443)),
        ("X.Org.:443", Host("x.org", 443)),
        ("my_db:5432", Host("my_db", 5432)),
        ("1.2.3.4:80", Host("1.2.3.4", 80)),
        ("[0:0::1]:80", Host("[::1]", 80)),
        ("xn--bcher-kva.example:80", Host("xn--bcher-kva.example", 80)),
    ],
)
def test_an_authority_has_one_form(text: str, expected: Host) -> None:
    assert target(text) == expected
    assert target(text.rpartition(":")[0]) is None, "a tunnel names its port"


labels = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.one_of(st.none(), st.integers(1, 65535))
patterns = st.one_of(names, names.map("*.{}".format))
listed = st.builds(Host, patterns, ports).map(str)


@given(st.lists(listed, max_size=4), names, st.integers(1, 65535))
def test_only_what_is_listed_passes(several: list[str], name: str, port: int) -> None:
    asked = Host(name, port)
    expected = False
    for one in several:
        pattern, colon, number = one.partition(":")
        below = pattern.startswith("*.") and name.endswith(pattern[1:]) and name != pattern[2:]
        expected |= (pattern == name or below) and (not colon or int(number) == port)
    if expected:
        check_listed(several, asked)
        return
    with pytest.raises(RefusalError) as refused:
        check_listed(several, asked)
    assert (refused.value.status, refused.value.code, refused.value.host) == (403, "unlisted", str(asked))


@given(st.lists(listed, max_size=4), st.lists(listed, max_size=4), names, st.integers(1, 65535))
def test_what_two_lists_have_in_common_is_what_both_reach(
    one: list[str], other: list[str], name: str, port: int
) -> None:
    asked = f"{name}:{port}"
    both = hosts.reaches(one, asked) and hosts.reaches(other, asked)
    assert hosts.reaches(hosts.common(one, other), asked) == both


@given(st.lists(listed, max_size=6))
def test_a_list_within_itself_stays_as_it_is(several: list[str]) -> None:
    assert set(hosts.common(several, several)) == set(several)
    assert set(hosts.common(several, [*several, "*.elsewhere", "x"])) >= set(several)


@given(st.text(max_size=40))
def test_whatever_is_asked_for_is_answered(text: str) -> None:
    found = hosts.host(text)
    assert found is None or hosts.host(str(found)) == found
