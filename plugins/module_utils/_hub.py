# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a Hugging Face Hub, or a mirror of one, what a model repository holds. Needs C(huggingface_hub).

Used on the controller only. Whatever goes wrong ends as one HubError with a cause and a next step.
"""

from __future__ import annotations

import os
import time
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._quant import COMMIT, REPO_ID
from ansible_collections.onprem.llamacpp.plugins.module_utils._source import token_step

NOT_A_HUB = (ValueError, KeyError, TypeError, AttributeError)  # what parsing raises when the answer is something else


class HubError(Exception):
    """One line for the user: what was asked, what came back, what to do."""


class Listing(NamedTuple):
    """A repository at one commit; ``files`` holds {path, size (bytes) or None, sha256 or None}."""

    repo_id: str
    commit: str
    files: list[dict[str, Any]]


def check_repo_id(repo_id: str) -> None:
    """Refuse what cannot be a repository's name; it becomes part of URLs and paths."""
    if not REPO_ID.match(repo_id):
        raise HubError(f"{repo_id!r} is not a repository: it is written <organisation>/<name>.")


def prepare_environment(endpoint: str) -> None:
    """Fix what huggingface_hub reads once, at import: no other host than ``endpoint`` may be asked."""
    os.environ["HF_ENDPOINT"] = endpoint
    for name in ("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ[name] = "1"
    if "SSL_CERT_FILE" not in os.environ:
        # The library knows only OpenSSL's own name for a CA bundle.
        bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        if bundle:
            os.environ["SSL_CERT_FILE"] = bundle


def read_listing(endpoint: str, repo_id: str, revision: str, token: Optional[str], timeout: float, retries: int) -> Listing:
    """The files of ``repo_id`` at ``revision``, in one request.

    ``timeout`` is in seconds for each attempt, ``retries`` counts attempts after the first for a source that does not
    answer or says it is busy. Raises HubError, and ImportError where huggingface_hub is missing.
    """
    check_repo_id(repo_id)
    prepare_environment(endpoint)
    from huggingface_hub import HfApi  # noqa: PLC0415 - only after the environment is fixed

    api = HfApi(endpoint=endpoint, token=token or False)
    for attempt in range(retries + 1):
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=timeout)
        except Exception as error:
            if attempt < retries and _may_pass(error):
                time.sleep(min(2.0**attempt, 8.0))
                continue
            raise HubError(explain(error, endpoint, repo_id, revision, bool(token))) from error
        commit = str(info.sha or "")
        if not COMMIT.match(commit):
            raise HubError(
                f"{endpoint} names no commit for {repo_id} at {revision}, so it cannot be pinned. Is it a Hub or a mirror of one?"
            )
        files = [{"path": item.rfilename, "size": item.size, "sha256": getattr(item.lfs, "sha256", None)} for item in info.siblings or []]
        return Listing(repo_id, commit, files)
    raise HubError(f"{endpoint} was not asked: retries is {retries}.")


def _status_of(error: Exception) -> int:
    return int(getattr(getattr(error, "response", None), "status_code", 0) or 0)


def _may_pass(error: Exception) -> bool:
    """Whether asking again has a chance: no answer at all, or one that says "later"."""
    from huggingface_hub import errors  # noqa: PLC0415

    if isinstance(error, (errors.OfflineModeIsEnabled, *NOT_A_HUB)):
        return False
    return _status_of(error) in (0, 408, 429, 500, 502, 503, 504)


def explain(error: Exception, endpoint: str, repo_id: str, revision: str, with_token: bool) -> str:
    """The cause of a failed request in one line, with the next step. Never the library's own many lines."""
    from huggingface_hub import errors  # noqa: PLC0415

    status = _status_of(error)
    what = f"{repo_id} at {endpoint}"
    step = token_step(with_token)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{what} was not asked, because HF_HUB_OFFLINE is set. Unset it, or deploy a model that is already on the host."
    if isinstance(error, errors.GatedRepoError):
        return f"{what} is gated (HTTP {status}). Accept its terms on the Hub's web page, then {step}."
    if status == 401:
        return f"{what} was refused (HTTP 401): it does not exist or is private. Check the name, then {step}."
    if status == 403:
        return f"{what} was refused (HTTP 403). Ask its owner for access, or {step}."
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{what} has no revision {revision} (HTTP 404). Set llama_model_revision to a branch, tag or commit that it has."
    if status == 404:
        return f"{what} does not exist (HTTP 404). Check the name, and llama_model_endpoint when a mirror is used."
    if status == 429:
        return f"{what} was asked too often (HTTP 429). Wait some minutes, or {step}."
    if status:
        return f"{what} answered HTTP {status}. Try again later, or set llama_model_endpoint to a mirror."
    if isinstance(error, NOT_A_HUB):
        return f"{what} did not answer as a Hub does: {_first_line(error)}. Check llama_model_endpoint."
    return f"{endpoint} cannot be reached: {_first_line(error)}. Check the network, llama_proxy_env and llama_model_endpoint."


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200].rstrip(".")
