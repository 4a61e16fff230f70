# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle is made of: a repository for a model's name, and the Python packages that the controller runs with."""

from __future__ import annotations

import json

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.onprem.llamacpp.plugins.filter.bundle import catalog_repository, wheel_inputs

SHIPPED = {"kimi-k2-instruct": {"repo_id": "unsloth/Kimi-K2-Instruct-GGUF"}}
INSTALLED = json.dumps(
    [{"name": "ansible-core", "version": "2.19.4"}, {"name": "huggingface_hub", "version": "2.4.0"}, {"name": "Jinja2", "version": "3.1.6"}]
)


@pytest.mark.parametrize(
    ("model", "own", "repository"),
    [
        pytest.param("kimi-k2-instruct", {}, "unsloth/Kimi-K2-Instruct-GGUF", id="shipped"),
        pytest.param("kimi-k2-instruct", {"kimi-k2-instruct": {"repo_id": "site/Kimi"}}, "site/Kimi", id="own wins"),
        pytest.param("example/Model-GGUF", {}, "example/Model-GGUF", id="repository"),
    ],
)
def test_a_model_stands_for_a_repository(model: str, own: dict, repository: str) -> None:
    assert catalog_repository(model, [SHIPPED, own]) == repository


def test_an_unknown_model_is_refused_with_what_is_near() -> None:
    with pytest.raises(AnsibleFilterError, match="kimi-k2-instruct"):
        catalog_repository("kimi-k2-instrukt", [SHIPPED])


def test_the_versions_that_run_are_those_that_are_gathered() -> None:
    found = wheel_inputs(INSTALLED, ["ansible-core", "huggingface_hub"])
    assert found["inputs"]["requirements"] == ["ansible-core==2.19.4", "huggingface_hub==2.4.0"]
    assert found["constraints"] == ["ansible-core==2.19.4", "huggingface-hub==2.4.0", "jinja2==3.1.6"]


def test_what_is_not_installed_cannot_be_gathered() -> None:
    with pytest.raises(AnsibleFilterError, match="lacks torch"):
        wheel_inputs(INSTALLED, ["ansible-core", "torch"])
