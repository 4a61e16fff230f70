# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the attributes of modules mean, and what most modules are like, said once; a module states what is different with it."""

from __future__ import annotations


class ModuleDocFragment:
    """The attributes that every module has."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode, changes nothing then, and returns what it would return otherwise.
    support: full
  diff_mode:
    description: Returns how what it changes differs, when Ansible shows differences.
    support: none
"""
