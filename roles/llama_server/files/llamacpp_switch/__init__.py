# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Replace what a llama.cpp instance serves, prove that it answers, or put the old deployment back.

One switch is one transaction with a journal on disk.  Its states:

    prepared -> [beside ->] switched -> gating -> committed
                    \\         \\
                     `---------`--> undoing -> undone | failed

``committed`` in the journal always names the last deployment that passed its gate, so whatever
interrupts a switch, the way back is known: ``recover`` runs at boot, before any server starts.

Installed by the role llama_server; standard library only, Python 3.9 and newer.
"""
