# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which keys are valid after a wish, and what nginx is told of them."""

from __future__ import annotations

import itertools
import re

import pytest

from ansible_collections.onprem.llamacpp.plugins.module_utils._front_keys import Client, callers, engine_key, problems, shown_key, wanted

A, B = Client("a"), Client("b")
GIVEN = "given-key-0123456789"

WISHES = {
    # name: clients, held, rotate, retire, then the keys that are valid
    "made once": ([A], {}, [], [], {"a": ["new0"]}),
    "kept": ([A], {"a": ["old"]}, [], [], {"a": ["old"]}),
    "a new one beside the old one": ([A], {"a": ["old"]}, ["a"], [], {"a": ["new0", "old"]}),
    "no third one": ([A], {"a": ["new", "old"]}, ["a"], [], {"a": ["new", "old"]}),
    "the old one ends": ([A], {"a": ["new", "old"]}, [], ["a"], {"a": ["new"]}),
    "nothing to end": ([A], {"a": ["new"]}, [], ["a"], {"a": ["new"]}),
    "a new one in the place of all": ([A], {"a": ["new", "old"]}, ["a"], ["a"], {"a": ["new0"]}),
    "others are not touched": ([A, B], {"a": ["old"], "b": ["other"]}, ["a"], [], {"a": ["new0", "old"], "b": ["other"]}),
    "no longer a client": ([A], {"a": ["old"], "b": ["other"]}, [], [], {"a": ["old"]}),
    "given": ([Client("a", (GIVEN,))], {"a": ["old"]}, [], [], {"a": [GIVEN]}),
    "given with the one before": ([Client("a", (GIVEN, "old"))], {"a": ["old"]}, [], [], {"a": [GIVEN, "old"]}),
    "an empty file": ([A], {"a": []}, [], [], {"a": ["new0"]}),
}


@pytest.mark.parametrize(("clients", "held", "rotate", "retire", "valid"), WISHES.values(), ids=WISHES)
def test_valid_keys(clients, held, rotate, retire, valid):
    numbers = itertools.count()
    assert wanted(clients, held, rotate, retire, lambda: f"new{next(numbers)}") == valid


PROBLEMS = {
    "nobody": ([], [], [], "is empty"),
    "name with a space": ([Client("a b")], [], [], "is no name"),
    "twice": ([A, A], [], [], "a is there twice"),
    "short key": ([Client("a", ("short",))], [], [], "a key of a is no bearer token"),
    "key with a quote": ([Client("a", ('0123456789abcdef"',))], [], [], "a key of a is no bearer token"),
    "shared key": ([Client("a", (GIVEN,)), Client("b", (GIVEN,))], [], [], "b and a have the same key"),
    "unknown": ([A], ["c"], [], "llama_server_front_rotate: c is not in"),
    "given key": ([Client("a", (GIVEN,))], [], ["a"], "llama_server_front_retire: the key of a is given"),
}


@pytest.mark.parametrize(("clients", "rotate", "retire", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_wish_that_cannot_be_granted(clients, rotate, retire, words):
    (found,) = problems(clients, rotate, retire)
    assert words in found and GIVEN not in found


def test_good_wish_has_no_problem():
    assert problems([A, Client("b", (GIVEN, "0123456789abcdef=="))], ["a"], ["a"]) == []


def test_nginx_compares_whole_keys_and_their_case():
    text = callers("my-model", {"a": ["Key.one+0123456789"], "b": ["two0123456789abcd"]})
    expressions = {client: expression for expression, client in re.findall(r'"~(\^.*\$)" "(\w+)";', text)}
    assert re.match(expressions["a"], "Key.one+0123456789")
    for other in ("key.one+0123456789", "Keyxone+0123456789", "Key.one+01234567890", "xKey.one+0123456789", "two0123456789abcd"):
        assert not re.match(expressions["a"], other)
    assert "map $llamacpp_my_model_key $llamacpp_my_model_client" in text


@pytest.mark.parametrize(("text", "header"), [("# made\nkey1\nkey2\n", '"Bearer key1"'), ("", '""')], ids=["the first one", "none"])
def test_engine_is_shown_its_own_key(text, header):
    assert engine_key(text) == f"proxy_set_header Authorization {header};\n"
    assert shown_key(engine_key(text)) == header.strip('"')[len("Bearer ") :]
