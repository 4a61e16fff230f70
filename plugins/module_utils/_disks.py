# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filesystems: room, what they can do and what they lie on. Sizes are bytes."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple, Optional

from ansible_collections.onprem.llamacpp.plugins.module_utils._host import read_text

# Whether a file may have holes that take no room. A name that is in neither list is not known.
SPARSE = frozenset("bcachefs btrfs ceph ext2 ext3 ext4 f2fs gfs2 jfs lustre nfs4 ntfs3 ocfs2 overlay ramfs tmpfs xfs zfs".split())
NOT_SPARSE = frozenset("exfat hfs hfsplus iso9660 msdos squashfs vfat".split())

# What several hosts mount at once.
SHARED = frozenset("9p afs beegfs ceph cifs fuse.glusterfs fuse.sshfs gfs2 gpfs lustre nfs nfs4 ocfs2 smb3 virtiofs".split())


class Mount(NamedTuple):
    """A line of ``/proc/self/mounts``."""

    source: str
    point: str
    filesystem: str


def mount_of(path: str, mounts: str) -> Mount:
    """The mount that a path which exists lies on; of several on one point the last, which hides the others."""
    best = Mount("", "/", "")
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        # Blanks and backslashes are written as octal escapes.
        point = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), fields[1])
        if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(best.point):
            best = Mount(fields[0], point, fields[2])
    return best


def existing(path: str) -> str:
    """The path, or its nearest parent that exists, without links."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return os.path.realpath(path)


def sparse(filesystem: str) -> Optional[bool]:
    """Whether a filesystem of that name keeps holes; None when the name is not known."""
    return True if filesystem in SPARSE else False if filesystem in NOT_SPARSE else None


def shared(filesystem: str) -> bool:
    """Whether other hosts may use what lies on a filesystem of that name."""
    return filesystem in SHARED


def rotational(number: int, root: str = "/sys/dev/block") -> Optional[bool]:
    """Whether a block device (as in C(st_rdev)) turns; None where the kernel does not say, as for network filesystems."""
    folder = os.path.join(root, f"{os.major(number)}:{os.minor(number)}")
    for queue in ("queue", "../queue"):  # a partition's lies with its disk
        text = read_text(os.path.join(os.path.realpath(folder), queue, "rotational")).strip()
        if text:
            return text == "1"
    return None


def _device(mount: Mount, path: str) -> int:
    """Number of the block device: the mount's own, because some filesystems make one up for their files."""
    try:
        return os.stat(mount.source).st_rdev if mount.source.startswith("/dev/") else os.stat(path).st_dev
    except OSError:
        return 0


def disk(path: str, mounts: str) -> dict[str, Any]:
    """Room on the filesystem that holds a path, or would hold it once it is made.

    Args:
        path: absolute path; its nearest existing parent is looked at.
        mounts: text of ``/proc/self/mounts``.
    """
    real = existing(path)
    mount = mount_of(real, mounts)
    room = os.statvfs(real)
    return {
        "path": path,
        "mount": mount.point,
        "filesystem": mount.filesystem,
        "total": room.f_blocks * room.f_frsize,
        "free": room.f_bavail * room.f_frsize,
        "sparse": sparse(mount.filesystem),
        "rotational": rotational(_device(mount, real)),
        "sequential_read": None,
    }
