# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian's own driver against Debian's kernel of today: where it compiles, and where it does not.

The file comes last, because its compilers run while the tests of the other hosts do.
"""

from __future__ import annotations

import json
import os
from typing import Any

from conftest import PACKAGES

OBJECT = """
set -e
kernel=$(ls /lib/modules)
cat > /etc/apt/sources.list.d/lab.list <<EOF
deb http://deb.debian.org/debian bookworm contrib
EOF
apt-get update -qq
apt-get install -y -qq --no-install-recommends linux-headers-$kernel make > /dev/null
cd /tmp
apt-get download -qq nvidia-open-kernel-dkms
dpkg -x nvidia-open-kernel-dkms_*.deb open
cd open/usr/src/nvidia-current-open-*
NV_EXCLUDE_KERNEL_MODULES="nvidia nvidia-uvm nvidia-modeset nvidia-drm" make -j2 modules KERNEL_UNAME=$kernel > make.log 2>&1
ls nvidia-peermem/nvidia-peermem.o
rm /etc/apt/sources.list.d/lab.list
"""


def test_modules_compile_against_real_headers(play: Any, compiled: Any, on_host: Any) -> None:
    """One object; all modules, by the role, with FULL=1, which takes six minutes of two cores."""
    host = on_host("works")
    if "FULL" not in os.environ:
        assert "nvidia-peermem.o" in host.check_output(OBJECT)
        return
    run = compiled["works"].run.result()
    assert run.status == 0, run.output[-3000:]
    assert "No module can be loaded: this host is a systemd-nspawn container. nvidia-smi lists no device" in run.text
    record = json.loads(host.check_output("cat /var/lib/llamacpp/driver.json"))
    assert (record["modules"], record["source"]) == ("open", "distribution")
    assert len(set(version.split("-")[0] for version in record["packages"].values())) == 1
    assert len(host.check_output("ls /lib/modules/*/updates/dkms").split()) == 5
    assert "installed" in host.check_output("dkms status")
    assert "nvidia" not in host.check_output("apt-get -s dist-upgrade | grep ^Inst || true")
    again = play("--limit", "works")
    assert again.stats["works"]["changed"] == 0


def test_a_driver_that_does_not_compile_is_named_and_taken_back(compiled: Any, on_host: Any) -> None:
    host = on_host("breaks")
    before, run = compiled["breaks"].before, compiled["breaks"].run.result()
    assert run.status != 0
    assert "(open modules, distribution) cannot be installed and was taken back" in run.text, run.output[-3000:]
    assert "nv-pci.c:237" in run.text and "error: too few arguments to function" in run.text
    assert "Take nvidia_driver_source nvidia, nvidia_driver_modules proprietary, or a kernel that this driver knows" in run.text
    assert host.check_output("dpkg --audit") == ""
    assert host.check_output(PACKAGES) == before
