# Copyright: (c) 2026, onprem.llamacpp contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NVIDIA's cards as data: what a host without a driver cannot be asked, and what no driver tells.

Memory is what the driver reports for the card (MiB), which is less than what is sold where error correction or firmware
take a part; bandwidth is the peak of the data sheet. Where one PCI id stands for several sizes the smallest is given.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

MIB = 2**20
GB = 10**9


class Model(NamedTuple):
    """One card: memory and bandwidth in bytes (per second); no memory means that it shares the host's."""

    name: str
    total: int
    compute_capability: str
    bandwidth: int


# PCI ids (of vendor 10de) | name as nvidia-smi prints it | MiB | compute capability | GB/s
_TABLE = """
17fd           | Tesla M40 | 11448 | 5.2 | 288
13f2           | Tesla M60 | 7618 | 5.2 | 160
15f7           | Tesla P100-PCIE-12GB | 12198 | 6.0 | 549
15f8           | Tesla P100-PCIE-16GB | 16280 | 6.0 | 732
15f9           | Tesla P100-SXM2-16GB | 16280 | 6.0 | 732
1b38           | Tesla P40 | 22919 | 6.1 | 346
1bb3           | Tesla P4 | 7611 | 6.1 | 192
15f0           | Quadro GP100 | 16278 | 6.0 | 717
1b30           | Quadro P6000 | 24449 | 6.1 | 432
1bb0           | Quadro P5000 | 16278 | 6.1 | 288
1bb1           | Quadro P4000 | 8119 | 6.1 | 243
1dba           | Quadro GV100 | 32508 | 7.0 | 868
17c2           | GeForce GTX TITAN X | 12212 | 5.2 | 336
17c8           | GeForce GTX 980 Ti | 6083 | 5.2 | 336
1b00           | TITAN X (Pascal) | 12196 | 6.1 | 480
1b02           | TITAN Xp | 12196 | 6.1 | 547
1d81           | TITAN V | 12066 | 7.0 | 652
1b06           | GeForce GTX 1080 Ti | 11178 | 6.1 | 484
1b80           | GeForce GTX 1080 | 8119 | 6.1 | 320
1b82           | GeForce GTX 1070 Ti | 8119 | 6.1 | 256
1b81           | GeForce GTX 1070 | 8119 | 6.1 | 256
1b83 1c03      | GeForce GTX 1060 6GB | 6078 | 6.1 | 192
1b84 1c02      | GeForce GTX 1060 3GB | 3019 | 6.1 | 192
1c82           | GeForce GTX 1050 Ti | 4040 | 6.1 | 112
1db1 1db2 1df5 | Tesla V100-SXM2-16GB | 16160 | 7.0 | 900
1db4 1db3      | Tesla V100-PCIE-16GB | 16160 | 7.0 | 900
1db5 1db7 1db8 | Tesla V100-SXM2-32GB | 32510 | 7.0 | 900
1db6           | Tesla V100-PCIE-32GB | 32510 | 7.0 | 900
1df6           | Tesla V100S-PCIE-32GB | 32510 | 7.0 | 1134
1eb8           | Tesla T4 | 15360 | 7.5 | 320
1eb4           | NVIDIA T4G | 15360 | 7.5 | 320
20b0           | NVIDIA A100-SXM4-40GB | 40960 | 8.0 | 1555
20f1 20b1      | NVIDIA A100-PCIE-40GB | 40960 | 8.0 | 1555
20b2           | NVIDIA A100-SXM4-80GB | 81920 | 8.0 | 2039
20b5           | NVIDIA A100 80GB PCIe | 81920 | 8.0 | 1935
20b3           | NVIDIA A100-SXM-64GB | 65536 | 8.0 | 1638
20f3           | NVIDIA A800-SXM4-80GB | 81920 | 8.0 | 2039
20f5           | NVIDIA A800 80GB PCIe | 81920 | 8.0 | 1935
20f6           | NVIDIA A800 40GB Active | 40960 | 8.0 | 1555
20b7           | NVIDIA A30 | 24576 | 8.0 | 933
2235           | NVIDIA A40 | 46068 | 8.6 | 696
2236           | NVIDIA A10 | 23028 | 8.6 | 600
2237           | NVIDIA A10G | 23028 | 8.6 | 600
25b6           | NVIDIA A2 | 15356 | 8.6 | 200
27b6           | NVIDIA L2 | 23034 | 8.9 | 300
27b8           | NVIDIA L4 | 23034 | 8.9 | 300
26b5           | NVIDIA L40 | 46068 | 8.9 | 864
26b9           | NVIDIA L40S | 46068 | 8.9 | 864
26ba           | NVIDIA L20 | 46068 | 8.9 | 864
2330           | NVIDIA H100 80GB HBM3 | 81559 | 9.0 | 3352
2331           | NVIDIA H100 PCIe | 81559 | 9.0 | 2039
2321           | NVIDIA H100 NVL | 95830 | 9.0 | 3938
2324           | NVIDIA H800 | 81559 | 9.0 | 3352
2322           | NVIDIA H800 PCIe | 81559 | 9.0 | 2039
2329           | NVIDIA H20 | 97871 | 9.0 | 4000
2335           | NVIDIA H200 | 143771 | 9.0 | 4800
233b           | NVIDIA H200 NVL | 143771 | 9.0 | 4800
2342           | NVIDIA GH200 480GB | 97871 | 9.0 | 4000
2901           | NVIDIA B200 | 183359 | 10.0 | 8000
3182           | NVIDIA B300 | 275040 | 10.3 | 8000
2e12           | NVIDIA GB10 | 0 | 12.1 | 273
1e36           | Quadro RTX 6000 | 23040 | 7.5 | 672
1e30 1e78      | Quadro RTX 6000/8000 | 23040 | 7.5 | 672
1eb0           | Quadro RTX 5000 | 16384 | 7.5 | 448
1eb1           | Quadro RTX 4000 | 8192 | 7.5 | 416
2230           | NVIDIA RTX A6000 | 49140 | 8.6 | 768
2233           | NVIDIA RTX A5500 | 24564 | 8.6 | 768
2231           | NVIDIA RTX A5000 | 24564 | 8.6 | 768
2232           | NVIDIA RTX A4500 | 20470 | 8.6 | 640
24b0           | NVIDIA RTX A4000 | 16376 | 8.6 | 448
2571           | NVIDIA RTX A2000 12GB | 12282 | 8.6 | 288
2531           | NVIDIA RTX A2000 | 6138 | 8.6 | 288
26b1           | NVIDIA RTX 6000 Ada Generation | 49140 | 8.9 | 960
26b3           | NVIDIA RTX 5880 Ada Generation | 49140 | 8.9 | 960
26b2           | NVIDIA RTX 5000 Ada Generation | 32760 | 8.9 | 576
27b1           | NVIDIA RTX 4500 Ada Generation | 24570 | 8.9 | 432
27b2           | NVIDIA RTX 4000 Ada Generation | 20475 | 8.9 | 360
27b0           | NVIDIA RTX 4000 SFF Ada Generation | 20475 | 8.9 | 280
2bb1           | NVIDIA RTX PRO 6000 Blackwell Workstation Edition | 97887 | 12.0 | 1792
2bb4           | NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition | 97887 | 12.0 | 1792
2bb5           | NVIDIA RTX PRO 6000 Blackwell Server Edition | 97887 | 12.0 | 1597
1e02           | NVIDIA TITAN RTX | 24220 | 7.5 | 672
1e04 1e07      | NVIDIA GeForce RTX 2080 Ti | 11264 | 7.5 | 616
1e81           | NVIDIA GeForce RTX 2080 SUPER | 8192 | 7.5 | 496
1e82 1e87      | NVIDIA GeForce RTX 2080 | 8192 | 7.5 | 448
1e84 1ec2 1ec7 | NVIDIA GeForce RTX 2070 SUPER | 8192 | 7.5 | 448
1f02 1f07      | NVIDIA GeForce RTX 2070 | 8192 | 7.5 | 448
2203           | NVIDIA GeForce RTX 3090 Ti | 24564 | 8.6 | 1008
2204           | NVIDIA GeForce RTX 3090 | 24576 | 8.6 | 936
2208           | NVIDIA GeForce RTX 3080 Ti | 12288 | 8.6 | 912
2206 2216      | NVIDIA GeForce RTX 3080 | 10240 | 8.6 | 760
220a           | NVIDIA GeForce RTX 3080 | 12288 | 8.6 | 912
2482           | NVIDIA GeForce RTX 3070 Ti | 8192 | 8.6 | 608
2484 2488      | NVIDIA GeForce RTX 3070 | 8192 | 8.6 | 448
2414 2486 2489 | NVIDIA GeForce RTX 3060 Ti | 8192 | 8.6 | 448
2487 2503 2504 | NVIDIA GeForce RTX 3060 | 12288 | 8.6 | 360
2684           | NVIDIA GeForce RTX 4090 | 24564 | 8.9 | 1008
2685           | NVIDIA GeForce RTX 4090 D | 24564 | 8.9 | 1008
2702           | NVIDIA GeForce RTX 4080 SUPER | 16376 | 8.9 | 736
2704           | NVIDIA GeForce RTX 4080 | 16376 | 8.9 | 717
2705           | NVIDIA GeForce RTX 4070 Ti SUPER | 16376 | 8.9 | 672
2782           | NVIDIA GeForce RTX 4070 Ti | 12282 | 8.9 | 504
2783           | NVIDIA GeForce RTX 4070 SUPER | 12282 | 8.9 | 504
2709 2786      | NVIDIA GeForce RTX 4070 | 12282 | 8.9 | 504
2805           | NVIDIA GeForce RTX 4060 Ti | 16380 | 8.9 | 288
2788 2803      | NVIDIA GeForce RTX 4060 Ti | 8188 | 8.9 | 288
2882           | NVIDIA GeForce RTX 4060 | 8188 | 8.9 | 272
2b85           | NVIDIA GeForce RTX 5090 | 32607 | 12.0 | 1792
2c02           | NVIDIA GeForce RTX 5080 | 16303 | 12.0 | 960
2c05           | NVIDIA GeForce RTX 5070 Ti | 16303 | 12.0 | 896
2f04           | NVIDIA GeForce RTX 5070 | 12227 | 12.0 | 672
2d04           | NVIDIA GeForce RTX 5060 Ti | 8151 | 12.0 | 448
"""


def _read(table: str) -> dict[str, Model]:
    models = {}
    for line in table.strip().splitlines():
        ids, name, mib, capability, speed = (cell.strip() for cell in line.split("|"))
        for device_id in ids.split():
            models[device_id] = Model(name, int(mib) * MIB, capability, int(speed) * GB)
    return models


BY_ID = _read(_TABLE)


def _plain(name: str) -> str:
    """A name without the brand, which drivers write with some cards and not with others."""
    return re.sub(r"^(nvidia|tesla|quadro|geforce)\s+", "", re.sub(r"^nvidia\s+", "", name.lower()))


_BY_NAME = {_plain(model.name): model for model in reversed(BY_ID.values())}


def find(pci_id: str, name: str = "") -> Optional[Model]:
    """The card with a PCI id (the device's four hex digits), else the one of that name; nothing when neither is known."""
    return BY_ID.get(pci_id.lower()) or _BY_NAME.get(_plain(name))
