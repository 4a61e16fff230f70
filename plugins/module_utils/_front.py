# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a front, an nginx before one instance, and how nginx comes to load them.

Files change together: nginx checks the whole before any of it counts, and when it refuses, all of them are as they were.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
from typing import NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils import _instance
from ansible_collections.onprem.llamacpp.plugins.module_utils._files import sync_directory
from ansible_collections.onprem.llamacpp.plugins.module_utils._host import Run, run_command

CONFIG_ROOT = "/etc/llamacpp/front"
SITE_ROOT = "/etc/nginx/conf.d"
NGINX = "/usr/sbin/nginx"
SECRET, OPEN = 0o600, 0o644
LISTEN = re.compile(r"^\s*listen\s+([^\s;]+)", re.MULTILINE)


class FrontError(Exception):
    """Why a front cannot be as it was wished, in words for the user."""


class File(NamedTuple):
    """A text and its permissions; what others may not read is not shown either."""

    text: str
    mode: int = SECRET


class Front:
    """One instance's front below two roots."""

    def __init__(self, name: str, config_root: str = CONFIG_ROOT, site_root: str = SITE_ROOT, run: Run = run_command) -> None:
        self.name, self.root, self._run = name, config_root, run
        self.folder = os.path.join(config_root, name)
        self.clients = os.path.join(self.folder, "clients")
        self.site = os.path.join(site_root, f"llamacpp-{name}.conf")
        self.upstream = self.path("upstream.conf")
        self._loaded = self.path("loaded")

    def path(self, name: str) -> str:
        """A file of the front by its name."""
        return os.path.join(self.folder, name)

    def ports(self) -> list[int]:
        """The ports that its site listens on, none without one."""
        found = (address.rpartition(":")[2] for address in LISTEN.findall(_instance.read_text(self.site) or ""))
        return sorted({int(port) for port in found if port.isdecimal()})

    def apply(self, files: dict[str, File], gone: list[str], check_mode: bool) -> dict[str, object]:
        """Bring files to these texts, remove others, and let nginx load what it has not loaded yet; C(changed) and C(diff).

        :raises FrontError: nginx refuses; everything is as it was.
        """
        changes = {path: file for path, file in files.items() if not _is(path, file)}
        leaving = [path for path in gone if os.path.lexists(path)]
        served = self.site in files or (os.path.exists(self.site) and self.site not in gone)
        result = {
            "changed": bool(changes or leaving) or (served and not self.loaded()),
            "diff": [_difference(path, file) for path, file in changes.items()],
        }
        if check_mode or not result["changed"]:
            return result
        before = {path: _instance.read_text(path) for path in [*changes, *leaving]}
        modes = {path: os.stat(path).st_mode & 0o777 for path in before if os.path.exists(path)}
        links = {path: os.readlink(path) for path in leaving if os.path.islink(path)}
        self._write(changes, leaving)
        if served or self.site in leaving:
            status, _out, err = self._run([NGINX, "-t", "-q"])
            if status:
                old = {path: File(text, modes[path]) for path, text in before.items() if text is not None and path not in links}
                self._write(old, [path for path, text in before.items() if text is None])
                for path, target in links.items():
                    os.symlink(target, path)
                raise FrontError(f"nginx refuses the front, nothing was changed: {(err.strip().splitlines() or ['no message'])[0]}")
            self._load(served)
        if served:
            _instance.write_file(self._loaded, self._digest() + "\n", SECRET)
        return result

    def taken(self, site: str) -> list[tuple[str, str]]:
        """Where this site would listen and another one of ours does already: address and file. nginx warns of it, and serves only one."""
        wanted, found = set(LISTEN.findall(site)), []
        for path in sorted(glob.glob(os.path.join(os.path.dirname(self.site), "llamacpp-*.conf"))):
            if path != self.site:
                found += [(address, path) for address in sorted(wanted & set(LISTEN.findall(_instance.read_text(path) or "")))]
        return found

    def loaded(self) -> bool:
        """Whether nginx has loaded the files as they are; a run that was cut off may have written them and no more."""
        return (_instance.read_text(self._loaded) or "").strip() == self._digest()

    def _digest(self) -> str:
        """Of everything that nginx reads but the port, which switches change."""
        names = [self.site, *(self.path(name) for name in ("callers.conf", "engine-key.conf", "certificate.pem", "key.pem"))]
        texts = [(_instance.read_text(path) or "") for path in names]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    def _write(self, files: dict[str, File], gone: list[str]) -> None:
        if files:
            _instance.make_directory(self.root)
            _instance.make_directory(self.folder, 0o700)
        for path, file in files.items():
            _instance.make_directory(os.path.dirname(path), 0o700 if path.startswith(self.folder) else 0o755)
            _instance.write_file(path, file.text, file.mode)
        for path in gone:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
                sync_directory(os.path.dirname(path))

    def _load(self, served: bool) -> None:
        orders = [["enable", "--quiet"], ["reload-or-restart"]] if served else [["try-reload-or-restart"]]
        for order in orders:
            status, _out, err = self._run(["systemctl", *order, "nginx.service"])
            if status:
                raise FrontError(f"systemctl {order[0]} nginx.service: {(err.strip().splitlines() or ['no message'])[-1]}")


def _is(path: str, file: File) -> bool:
    """Whether a file has this text and these permissions."""
    text: Optional[str] = _instance.read_text(path)
    if text != file.text:
        return False
    status = os.stat(path)
    return status.st_mode & 0o777 == file.mode and status.st_uid == os.geteuid()


def _difference(path: str, file: File) -> dict[str, str]:
    """What Ansible shows of a change; of a secret only that there is one."""
    if file.mode == OPEN:
        return {"before_header": path, "before": _instance.read_text(path) or "", "after_header": path, "after": file.text}
    state = "(kept to itself)\n" if os.path.exists(path) else ""
    return {"before_header": path, "before": state, "after_header": path, "after": "(kept to itself, changed)\n"}
