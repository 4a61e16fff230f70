# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.plugin_utils import _strangers

REMEDIES = {
    "a service of its own": (("nginx", 4711, "nginx.service"), "systemctl disable --now nginx.service"),
    "Ollama as a service": (("/usr/local/bin/ollama", 77, "ollama.service"), "systemctl disable --now ollama.service"),
    "Ollama by hand": (("ollama", 77, "session-3.scope"), "ollama stop for each model that `ollama ps` shows, or kill 77"),
    "a server started by hand": (("llama-server", 78, "user@1000.service"), "kill 78, a llama-server that was started by hand"),
    "started by a login": (("python3", 79, "ssh.service"), "kill 79"),
    "in a container": (("docker-proxy", 80, "docker.service"), "stop the container that publishes the port (docker ps)"),
    "nobody may see it": (("", 0, ""), "find it as root with ss -ltnp"),
}


@pytest.mark.parametrize(("who", "said"), REMEDIES.values(), ids=REMEDIES)
def test_remedy_stops_the_program_and_no_other(who, said):
    assert _strangers.remedy(*who) == said


def test_largest_holder_of_a_device_comes_with_its_remedy():
    held = [{"name": "ollama", "pid": 77, "unit": "ollama.service"}, {"name": "python3", "pid": 79}]
    assert _strangers.device_note("CUDA0", "14 GB", "16 GB", held, ["13 GB", "1 GB"]) == (
        "CUDA0: 14 GB of 16 GB are held by other programs: ollama (PID 77, ollama.service) 13 GB, python3 (PID 79) 1 GB;"
        " to have it back: systemctl disable --now ollama.service"
    )
