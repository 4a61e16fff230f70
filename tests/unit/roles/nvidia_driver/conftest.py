# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture(name="run_tasks")
def fixture_run_tasks(run_role_tasks: Callable[..., Any]) -> Callable[..., Any]:
    """Runs one file of this role's tasks."""
    return functools.partial(run_role_tasks, "nvidia_driver")
