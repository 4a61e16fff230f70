# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of repositories: their fingerprints, and the module that installs only what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _openpgp

# Made with gpg for this test; the fingerprint is the one that gpg tells.
FINGERPRINT = "63B73B1CD4F6A44DD8CF654CA269D6E6C65AF973"
KEY = """-----BEGIN PGP PUBLIC KEY BLOCK-----

mDMEawKAKxYJKwYBBAHaRw8BAQdA7PFRiVBmfZbI1UhD0Rxebul1OV3kAKpvBUVS
2GrQbmi0I1BhY2thZ2VzIG9mIGEgbGFiIDxsYWJAZXhhbXBsZS5jb20+iJYEExYI
AD4WIQRjtzsc1PakTdjPZUyiadbmxlr5cwUCawKAKwIbAwUJA8JnAAULCQgHAgYV
CgkICwIEFgIDAQIeAQIXgAAKCRCiadbmxlr5c1G8AQDIuxZ/oAwuBGEWdv7ZiIXt
Evyb+qC8uHV9QYz4BPfNHQEAvceRm6LtJ9BChgHYiVArWI8hry7EYbsZBUe0rhXu
ZAE=
=uCjj
-----END PGP PUBLIC KEY BLOCK-----
"""
BODY = KEY.split("\n\n", 1)[1].split("\n-----END", maxsplit=1)[0]


def test_fingerprint() -> None:
    assert _openpgp.fingerprints(KEY) == [FINGERPRINT]
    assert _openpgp.fingerprints("Some words before.\n" + KEY.replace("\n", "\r\n") + KEY) == [FINGERPRINT, FINGERPRINT]
    assert _openpgp.plain(" ".join(FINGERPRINT[at : at + 4].lower() for at in range(0, 40, 4))) == FINGERPRINT


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("<html>404 Not Found</html>", "no armored OpenPGP public key", id="web page"),
        pytest.param("", "no armored OpenPGP public key", id="nothing"),
        pytest.param(KEY.replace(BODY[:40], BODY[:40].replace(BODY[3], "!")), "base64", id="damaged text"),
        pytest.param(KEY.replace(BODY, "aGVsbG8gd29ybGQ=\n"), "unknown byte", id="something else in base64"),
        pytest.param(KEY.replace(BODY, BODY[:28] + "\n"), "cut short", id="cut short"),
    ],
)
def test_what_is_no_key(text: str, reason: str) -> None:
    with pytest.raises(_openpgp.PublicKeyError, match=reason):
        _openpgp.fingerprints(text)


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        pytest.param({"content": KEY, "fingerprints": [FINGERPRINT.lower()]}, True, id="expected"),
        pytest.param({"content": KEY}, True, id="given by the user"),
        pytest.param({"content": KEY, "_ansible_check_mode": True}, True, id="check mode"),
        pytest.param({"content": KEY, "fingerprints": ["0" * 40]}, None, id="another fingerprint"),
        pytest.param({"content": "no key"}, None, id="no key"),
        pytest.param({"url": "http://127.0.0.1:9/key"}, None, id="no answer"),
    ],
)
def test_module(run_module: Any, tmp_path: Path, arguments: dict[str, Any], changed: bool | None) -> None:
    path = tmp_path / "keys" / "nvidia.asc"
    status, result = run_module("repository_key", path=str(path), **arguments)
    assert (status == 0, result.get("changed")) == (changed is not None, changed)
    assert path.exists() == bool(changed and not arguments.get("_ansible_check_mode"))
    if "0" * 40 in arguments.get("fingerprints", []):
        assert f"has the fingerprint {FINGERPRINT}, but {'0' * 40} is expected" in result["msg"]


def test_a_key_that_is_there_costs_no_request(run_module: Any, tmp_path: Path) -> None:
    path = tmp_path / "nvidia.asc"
    path.write_text(KEY)
    arguments = {"url": "http://127.0.0.1:9/key", "path": str(path), "fingerprints": [FINGERPRINT]}
    assert run_module("repository_key", **arguments)[1]["changed"] is False
