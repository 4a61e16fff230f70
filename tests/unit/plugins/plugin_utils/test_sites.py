# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host takes its models from, by its site and its wish."""

from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _sites

HUB = "https://hub.example"
PLANT = {"inventory_hostname": "mirror-1", "ansible_host": "192.0.2.1", "llama_site": "plant", "llama_mirror_token": "secret"}
OFFICE = {"inventory_hostname": "mirror-2", "llama_site": "office"}


def wish(**changes):
    known = {"site": "plant", "transport": "auto", "endpoint": HUB, "token": "hf_x", "mirror": "", "mirror_token": "", "directory": ""}
    return {**known, **changes}


def test_a_site_may_be_a_number():
    found = _sites.sources(wish(site=7, transport="mirror"), [{**PLANT, "llama_site": 7}])
    assert (found["problem"], found["mirror"]["name"]) == ("", "mirror-1")


def order(found):
    return [(item["transport"], item["url"]) for item in found["sources"]]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, [("mirror", "http://192.0.2.1"), ("hub", HUB)], id="auto: the site's mirror, then the Hub"),
        pytest.param({"site": "elsewhere"}, [("hub", HUB)], id="auto on a site without a mirror"),
        pytest.param(
            {"directory": "/mnt/usb"}, [("directory", "/mnt/usb"), ("mirror", "http://192.0.2.1"), ("hub", HUB)], id="auto with a directory"
        ),
        pytest.param({"transport": "hub"}, [("hub", HUB)], id="hub alone"),
        pytest.param({"transport": "mirror"}, [("mirror", "http://192.0.2.1")], id="mirror alone"),
        pytest.param({"transport": "swarm"}, [("mirror", "http://192.0.2.1")], id="the swarm falls back on the mirror"),
        pytest.param({"transport": "directory", "directory": "/mnt/usb"}, [("directory", "/mnt/usb")], id="directory alone"),
        pytest.param({"mirror": "http://own:8080/", "transport": "mirror"}, [("mirror", "http://own:8080")], id="a mirror by URL"),
        pytest.param({"endpoint": "http://192.0.2.1/"}, [("mirror", "http://192.0.2.1")], id="an endpoint that is the mirror"),
    ],
)
def test_order_of_sources(changes, expected):
    found = _sites.sources(wish(**changes), [OFFICE, PLANT])
    assert found["problem"] == ""
    assert order(found) == expected


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        pytest.param({}, "http://m", id="name"),
        pytest.param({"ansible_host": "2001:db8::1"}, "http://[2001:db8::1]", id="IPv6"),
        pytest.param({"llama_mirror_port": 8080}, "http://m:8080", id="port"),
        pytest.param({"llama_mirror_tls_certificate": "/c.pem"}, "https://m", id="TLS"),
        pytest.param({"llama_mirror_tls_certificate": "/c.pem", "llama_mirror_port": "8443"}, "https://m:8443", id="TLS and port"),
        pytest.param({"llama_mirror_tls_certificate": "/c.pem", "llama_mirror_port": 443}, "https://m", id="TLS on its own port"),
        pytest.param({"llama_mirror_url": "https://models.plant/"}, "https://models.plant", id="given"),
    ],
)
def test_url_of_a_mirror(variables, url):
    assert _sites.mirror_of({"inventory_hostname": "m", **variables}).url == url


def test_hosts_without_sites_belong_together():
    assert order(_sites.sources(wish(site=""), [PLANT, {"inventory_hostname": "m"}]))[0] == ("mirror", "http://m")


def test_each_source_has_its_own_token():
    tokens = {item["transport"]: item["token"] for item in _sites.sources(wish(), [PLANT])["sources"]}
    assert tokens == {"mirror": "secret", "hub": "hf_x"}
    named = _sites.sources(wish(mirror="http://own", mirror_token="mine"), [PLANT])["sources"]
    assert named[0]["token"] == "mine"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param(
            {"transport": "mirror", "site": "elsewhere"},
            "the site elsewhere has no mirror. Hosts of the group llama_mirrors: mirror-1 (plant), mirror-2 (office).",
            id="no mirror of this site",
        ),
        pytest.param({"transport": "swarm", "site": ""}, "a host without llama_site has no mirror", id="no site"),
        pytest.param({"transport": "directory"}, "llama_model_directory names none", id="no directory"),
        pytest.param({"directory": "usb"}, "expected an absolute path", id="relative directory"),
        pytest.param({"transport": "ftp"}, "expected one of auto, hub, mirror, swarm, directory", id="unknown transport"),
    ],
)
def test_what_cannot_be_is_told(changes, told):
    found = _sites.sources(wish(**changes), [PLANT, OFFICE])
    assert told in found["problem"]
    assert found["sources"] == []


@pytest.mark.parametrize(
    ("changes", "mirror", "endpoint"),
    [
        pytest.param({}, {"name": "mirror-1", "url": "http://192.0.2.1"}, HUB, id="mirror, then Hub"),
        pytest.param({"transport": "mirror"}, {"name": "mirror-1", "url": "http://192.0.2.1"}, "", id="mirror alone"),
        pytest.param({"transport": "hub"}, {}, HUB, id="Hub alone"),
        pytest.param({"transport": "directory", "directory": "/mnt"}, {}, HUB, id="a directory has no listing"),
    ],
)
def test_who_is_asked_for_a_listing(changes, mirror, endpoint):
    found = _sites.listing_sources(wish(**changes), [PLANT])
    assert found == {"mirror": mirror, "endpoint": endpoint, "problem": ""}
    assert "secret" not in repr(found)
