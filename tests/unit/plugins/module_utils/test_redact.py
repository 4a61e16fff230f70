# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils import _redact

KEY = "5f" * 32
SECRETS = {
    "known key": (f"somebody printed {KEY} here", "somebody printed [redacted] here"),
    "token of the hub": ("HF_TOKEN=hf_abcdefghijklmnopqrstuvwx", "HF_TOKEN=[redacted]"),
    "bearer": ("Authorization: Bearer abc.def", "Authorization: Bearer [redacted]"),
    "password in a proxy": ("https://me:secret@proxy.example:3128/", "https://[redacted]@proxy.example:3128/"),
    "key in a URL": ("GET /v1/models?api_key=0123456789 HTTP/1.1", "GET /v1/models?api_key=[redacted] HTTP/1.1"),
    "by its name": ('"api_key": "correct-horse-battery"', '"api_key": "[redacted]"'),
    "variable": ("MY_PASSWORD=hunter2hunter2", "MY_PASSWORD=[redacted]"),
    "tokens a second are none": ('"tokens_per_second": 123456789.5', '"tokens_per_second": 123456789.5'),
    "numbers of tokens are none": ("print_info: EOS token        = 163586 '[EOS]'", "print_info: EOS token        = 163586 '[EOS]'"),
}


@pytest.mark.parametrize(("said", "left"), SECRETS.values(), ids=SECRETS)
def test_secrets_go_and_figures_stay(said, left):
    assert _redact.text(said, [KEY]) == left


LINES = {
    "request": ('srv log_server_r: request:  {"messages":[{"role":"user","content":"my disease"}]}', False),
    "prompt": ("slot update_slots: prompt: 'my disease'", False),
    "streamed answer": ('srv data: {"choices":[{"delta":{"content":"your disease"}}]}', False),
    "times": ("slot print_timing: prompt eval time = 2331.72 ms / 76 tokens", True),
    "a new prompt without its text": ("slot update_slots: id 0 | task 7 | new prompt, n_ctx_slot = 2048", True),
    "buffers": ("load_tensors: CUDA0 model buffer size = 512.00 MiB", True),
}


@pytest.mark.parametrize(("line", "stays"), LINES.values(), ids=LINES)
def test_lines_in_which_users_speak_go_as_a_whole(line, stays):
    found = _redact.log(line, [])
    assert (found == line + "\n") == stays
    assert "disease" not in found


def test_questions_and_answers_of_the_gate_go():
    gate = {"passed": True, "answer": "Paris", "request": {"prompts": [{"prompt": "The capital of France?"}]}, "notes": []}
    assert _redact.document(gate) == {"passed": True, "answer": "[redacted]", "request": {"prompts": "[redacted]"}, "notes": []}


def test_every_long_word_of_a_secret_file_may_be_a_key():
    assert _redact.keys_of(f'# alice\n{KEY}\nmap "Bearer {KEY[:20]}" 1;\n') == {KEY, KEY[:20]}
