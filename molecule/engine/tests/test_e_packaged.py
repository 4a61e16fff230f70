# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines of packages: which are refused before apt installs them, and what becomes of one whose files change."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from conftest import RELEASES, ROOT, refused, releases, send

PACKAGES = ["llama.cpp-tools", "llama.cpp-tools-extra", "libggml0", "libllama0"]
# Empty packages of a version in a repository that wins over Debian's.
OFFER = """
set -e
rm -rf /srv/old && mkdir -p /srv/old/root/DEBIAN && cd /srv/old
for name in {names}; do
  printf 'Package: %s\\nVersion: {version}\\nArchitecture: all\\nMaintainer: nobody\\nDescription: stand-in\\n' $name > root/DEBIAN/control
  dpkg-deb --build root $name.deb > /dev/null
  {{ dpkg-deb -f $name.deb; echo "Filename: ./$name.deb"; echo "Size: $(stat -c %s $name.deb)"
    echo "SHA256: $(sha256sum $name.deb | cut -d' ' -f1)"; echo; }} >> Packages
done
echo 'deb [trusted=yes] file:/srv/old ./' > /etc/apt/sources.list.d/old.list
printf 'Package: *\\nPin: origin ""\\nPin-Priority: 1001\\n' > /etc/apt/preferences.d/old
apt-get update -o Dir::Etc::sourcelist=sources.list.d/old.list -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0
"""
INSTALLED = f"dpkg-query -W -f='${{Package}} ${{db:Status-Status}}\\n' {' '.join(PACKAGES)} 2>/dev/null | grep ' installed'; true"
TEMPLATE = (ROOT / "roles/llama_server/templates/unit.conf.j2").read_text()
PROGRAM = "/srv/program/llamacpp-switch"
# What the server's unit has the program asked before each start.
BEFORE = next(line for line in TEMPLATE.splitlines() if line.startswith("ExecStartPre="))
UNIT = f"""[Service]
Type=oneshot
{BEFORE.replace("{{ _llama_server_program }}", PROGRAM).replace("%i", "main")}
ExecStart=/bin/true
"""


@pytest.fixture
def without(packaged: Any) -> Iterator[Any]:
    """The host without the packages of its engine; afterwards with Debian's repository alone."""
    packaged.check_output(f"apt-mark unhold {' '.join(PACKAGES)} && DEBIAN_FRONTEND=noninteractive apt-get remove -y {' '.join(PACKAGES)}")
    yield packaged
    packaged.check_output("rm -rf /etc/apt/sources.list.d/old.list /etc/apt/preferences.d/old /srv/old")


def test_packages_that_are_too_old_are_refused_before_apt_installs_them(play: Any, packaged: Any, without: Any) -> None:
    (name,) = releases(packaged)
    packaged.check_output(f"mv {RELEASES}/{name} /srv/release")
    try:
        packaged.check_output(OFFER.format(names=" ".join(PACKAGES), version="9721+dfsg-1"))
        refused(play(host="packaged"), "llama.cpp-tools 9721+dfsg-1 is refused (advisory server-floor)", "llama_engine_force")
        assert packaged.check_output(INSTALLED) == ""
    finally:
        packaged.check_output(f"mv /srv/release {RELEASES}/{name}")
    # Above the floor, but older than those that the host's engine was made of.
    packaged.check_output(OFFER.format(names=" ".join(PACKAGES), version="1:0.6.0+dfsg-1"))
    refused(play(host="packaged"), "llama.cpp-tools is 1:0.6.0+dfsg-1, but an engine of this host was made of", "Packages do not go back")
    assert packaged.check_output(INSTALLED) == ""


def test_the_packages_of_the_distribution_are_installed_again(play: Any, packaged: Any) -> None:
    before = releases(packaged)
    run = play(host="packaged")
    assert run.status == 0, run.output[-3000:]
    assert releases(packaged) == before
    assert set(PACKAGES) == set(packaged.check_output("apt-mark showhold").split())
    assert play(host="packaged").stats["packaged"]["changed"] == 0


def test_an_engine_whose_files_changed_is_not_started(packaged: Any) -> None:
    (name,) = releases(packaged)
    folder = "/etc/llamacpp/instances/main"
    library = packaged.check_output("readlink -f /usr/lib/*/libllama.so.0")
    packaged.check_output(f"mkdir -p /srv/program {folder}/deployments/{'a' * 12}")
    files = ROOT / "roles/llama_server/files"
    send("10.87.0.13", "/srv/program/", files / "llamacpp-switch", files / "llamacpp_switch")
    packaged.check_output(
        f"ln -sfn {RELEASES}/{name} {folder}/deployments/{'a' * 12}/engine && ln -sfn deployments/{'a' * 12} {folder}/current"
        # As the role llama_server installs it.
        f" && sed -i '1i #!/usr/bin/python3 -I' {PROGRAM} && chmod 755 {PROGRAM}"
        f" && printf '{UNIT}' > /run/systemd/system/stand-in.service && systemctl daemon-reload"
    )
    try:
        packaged.check_output("systemctl start stand-in")
        packaged.check_output(
            f"cp -a {library} /srv/whole && cp -a {library} {library}.new && printf x >> {library}.new && mv {library}.new {library}"
        )
        assert packaged.run("systemctl start stand-in").rc != 0
        told = packaged.check_output("journalctl -u stand-in -o cat")
        assert f"{name} was made of" in told and f"{library} first: packages do not go back" in told
    finally:
        packaged.check_output(f"if [ -e /srv/whole ]; then mv /srv/whole {library}; fi")
    packaged.check_output("systemctl start stand-in")
    packaged.check_output("rm -rf /etc/llamacpp /srv/program /run/systemd/system/stand-in.service && systemctl daemon-reload")
