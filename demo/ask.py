# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a served model one question, as any client of the OpenAI API would: URL, key file, question; prints the answer's JSON."""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path


def ask(url: str, key: str, question: str) -> dict:
    """The server's answer to a chat request, with a fixed seed and temperature 0."""
    body = {"messages": [{"role": "user", "content": question}], "temperature": 0, "seed": 1, "max_tokens": 64}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    print(json.dumps(ask(sys.argv[1], Path(sys.argv[2]).read_text().strip(), sys.argv[3])))
