# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a served model one question, as any client of the OpenAI API would: URL, key file, question.

Prints the answer, and on a second line the tokens per second.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path


def ask(url: str, key: str, question: str) -> dict:
    """The server's completion of a question, with a fixed seed and temperature 0. The demo's model is a base model: it continues."""
    body = {"prompt": f"Question: {question}\nAnswer:", "temperature": 0, "seed": 1, "max_tokens": 32}
    request = urllib.request.Request(
        f"{url}/v1/completions",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        return json.load(answer)


if __name__ == "__main__":
    said = ask(sys.argv[1], Path(sys.argv[2]).read_text().strip(), sys.argv[3])
    # What follows the first line is the model going on with questions of its own.
    print(said["choices"][0]["text"].strip().splitlines()[0])
    print(round(said["timings"]["predicted_per_second"], 1))
