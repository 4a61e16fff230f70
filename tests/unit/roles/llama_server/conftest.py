# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from switch_host import OLD, OLDER, Host, gate, preflight


@pytest.fixture
def host(tmp_path, monkeypatch):
    monkeypatch.setattr(gate, "POLL_SECONDS", 0.02)
    # The test's own process listens in place of the server.
    monkeypatch.setattr(preflight, "listening", lambda *_arguments: [])
    made = Host(tmp_path)
    yield made
    made.systemd.shut()


@pytest.fixture
def serving(host):
    """A host that serves OLD, and served OLDER before."""
    host.deploy(OLDER)
    host.deploy(OLD)
    host.run(OLDER)
    host.run(OLD)
    assert host.links() == (OLD, OLDER)
    return host
