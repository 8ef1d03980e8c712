"""Device profiles: memory and Flash figures of phones, laptops and boards, each with its source.

Bandwidths are the interface's peak, as specification sheets give them; what a program reaches is less (on
a CPU often 60–80 %). A figure that no sheet gives is marked as assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from backend.devices.flash import Flash, flat, from_iops
from backend.errors import UserError
from backend.registry import Registry

Kind = Literal["phone", "laptop", "board"]


@dataclass(frozen=True)
class DeviceProfile:
    """What the simulator needs to know of a device.

    Attributes:
        name: Its name in the registry.
        title: Its name for people.
        kind: Phone, laptop (or desktop), or board.
        dram_gb: Memory built in, in GB; a program gets a part of it.
        dram_gb_per_s: Memory bandwidth, in GB/s.
        dram_source: Where the memory's figures come from.
        flash: Its Flash storage.
        io_overlap: Whether reads from Flash run beside reads from DRAM. Off unless asked for: DIP picks the
            columns of a linear just before it needs them.
        dram_assumed: Which figures of the memory are estimates.
    """

    name: str
    title: str
    kind: Kind
    dram_gb: float
    dram_gb_per_s: float
    dram_source: str
    flash: Flash
    io_overlap: bool = False
    dram_assumed: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """All sources in one line, with what is assumed said."""
        dram = f"DRAM: {self.dram_source}{_assumed(self.dram_assumed)}"
        return f"{dram}. Flash: {self.flash.source}{_assumed(self.flash.assumed)}."

    def with_bandwidths(
        self, dram_gb_per_s: float | None = None, flash_gb_per_s: float | None = None
    ) -> DeviceProfile:
        """Return this device with other bandwidths; None leaves one as it is.

        Args:
            dram_gb_per_s: Memory bandwidth, in GB/s.
            flash_gb_per_s: Bandwidth of large Flash reads, in GB/s; smaller reads change in proportion.

        Raises:
            UserError: A bandwidth is not above 0.
        """
        for name, value in (("DRAM", dram_gb_per_s), ("Flash", flash_gb_per_s)):
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"The {name} bandwidth has to be above 0 GB/s (given: {value:g}).")
        flash = self.flash
        if flash_gb_per_s is not None:
            factor = flash_gb_per_s / flash.peak_gb_per_s
            flash = replace(flash, points=tuple((size, rate * factor) for size, rate in flash.points))
        return replace(self, flash=flash, dram_gb_per_s=dram_gb_per_s or self.dram_gb_per_s)


def _assumed(figures: tuple[str, ...]) -> str:
    return f" (assumed: {', '.join(figures)})" if figures else ""


DEVICES: Registry[DeviceProfile] = Registry("device")
"""Every device profile, by name; the first is the paper's."""

PAPER_FLASH = flat(1.0, "arXiv 2412.01380: 1 GB/s for reads of any size")

UFS_4 = Flash(
    # 4 KiB: 0.45 GB/s over a large range of addresses, up to 1 GB/s within 128 MB: the careful figure.
    ((4096, 0.45), (524_288, 3.5), (8_388_608, 4.2)),
    100.0,
    "UFS 4.0: random reads from PowerInfer-2, arXiv 2406.06282; 4,200 MB/s sequential: Samsung, May 2022",
    ("latency", "read size at which the sequential figure is reached"),
)
UFS_3_1 = from_iops(100_000, 2.1, 120.0, "Samsung eUFS 3.1, March 2020: 2,100 MB/s, 100,000 random reads/s")
NVME_4 = from_iops(
    1_000_000,
    7.0,
    45.0,
    "Samsung 980 PRO 1 TB sheet: 7,000 MB/s, 1,000,000 random reads/s (QD32, 16 threads), 22,000 at QD1",
    (),
)
NVME_3 = from_iops(500_000, 3.5, 60.0, "Samsung 970 EVO Plus sheet: 3,500 MB/s", ("random reads", "latency"))
SATA_SSD = from_iops(
    98_000, 0.56, 77.0, "Samsung 870 EVO sheet: 560 MB/s, 98,000 random reads/s (QD32), 13,000 at QD1", ()
)
APPLE_SSD = from_iops(
    250_000,
    3.0,
    60.0,
    "no sheet: of the order of a current NVMe SSD",
    ("sequential", "random reads", "latency"),
)
MICROSD_A2 = from_iops(
    4_000, 0.09, 500.0, "SD Association, class A2: 4,000 random reads/s", ("sequential", "latency")
)
NVME_PI = from_iops(
    90_000,
    0.45,
    80.0,
    "one PCIe 2.0 lane: 0.5 GB/s before overhead",
    ("share left after overhead", "random reads", "latency"),
)


def _register() -> None:
    ddr4 = "DDR4-3200, two channels of 64 bit = 51.2 GB/s"
    pi5 = "Raspberry Pi: LPDDR4X-4267; its width of 32 bit gives 17.1 GB/s; 8 GB model"
    for profile in (
        DeviceProfile(
            "apple-a18",
            "Apple A18 (the paper's device)",
            "phone",
            8,
            60.0,
            "arXiv 2412.01380: 60 GB/s; 8 GB: Apple's iPhone 16",
            PAPER_FLASH,
        ),
        DeviceProfile(
            "snapdragon-8-elite",
            "Snapdragon 8 Elite phone",
            "phone",
            12,
            84.8,
            "Qualcomm: LPDDR5X up to 5,300 MHz, 64 bit = 84.8 GB/s; 12 GB: common models",
            UFS_4,
        ),
        DeviceProfile(
            "snapdragon-8-gen-3",
            "Snapdragon 8 Gen 3 phone",
            "phone",
            12,
            76.8,
            "Qualcomm: LPDDR5X up to 4,800 MHz, 64 bit = 76.8 GB/s; 12 GB: common models",
            UFS_4,
        ),
        DeviceProfile(
            "snapdragon-8-gen-2",
            "Snapdragon 8 Gen 2 phone",
            "phone",
            8,
            67.2,
            "Qualcomm: LPDDR5X up to 4,200 MHz, 64 bit = 67.2 GB/s; 8 GB: common models",
            UFS_4,
        ),
        DeviceProfile(
            "snapdragon-888",
            "Snapdragon 888 phone",
            "phone",
            8,
            51.2,
            "Qualcomm: LPDDR5 up to 3,200 MHz, 64 bit = 51.2 GB/s; 8 GB: common models",
            UFS_3_1,
        ),
        DeviceProfile(
            "macbook-air-m1",
            "MacBook Air (M1)",
            "laptop",
            8,
            68.3,
            "LPDDR4X-4266, 128 bit = 68.3 GB/s; 8 GB: the base model",
            APPLE_SSD,
        ),
        DeviceProfile(
            "macbook-air-m2",
            "MacBook Air (M2)",
            "laptop",
            8,
            100.0,
            "Apple's specifications: 100 GB/s; 8 GB: the base model at its release",
            APPLE_SSD,
        ),
        DeviceProfile(
            "macbook-air-m4",
            "MacBook Air (M4)",
            "laptop",
            16,
            120.0,
            "Apple's specifications: 120 GB/s; 16 GB: the base model",
            APPLE_SSD,
        ),
        DeviceProfile(
            "laptop-ddr5",
            "Laptop, DDR5-5600 and PCIe 4.0 SSD",
            "laptop",
            16,
            89.6,
            "DDR5-5600, two channels of 64 bit = 89.6 GB/s",
            NVME_4,
        ),
        DeviceProfile("laptop-ddr4", "Laptop, DDR4-3200 and PCIe 3.0 SSD", "laptop", 16, 51.2, ddr4, NVME_3),
        DeviceProfile(
            "laptop-ddr4-sata", "Laptop, DDR4-3200 and SATA SSD", "laptop", 8, 51.2, ddr4, SATA_SSD
        ),
        DeviceProfile(
            "jetson-orin-nano",
            "Jetson Orin Nano 8 GB, NVMe SSD",
            "board",
            8,
            68.0,
            "NVIDIA's specifications: 128-bit LPDDR5, 68 GB/s (Super mode: 102 GB/s), 8 GB",
            NVME_3,
        ),
        DeviceProfile(
            "jetson-agx-orin",
            "Jetson AGX Orin 64 GB, NVMe SSD",
            "board",
            64,
            204.8,
            "NVIDIA's specifications: 256-bit LPDDR5, 204.8 GB/s, 64 GB",
            NVME_4,
        ),
        DeviceProfile("raspberry-pi-5-nvme", "Raspberry Pi 5, NVMe SSD", "board", 8, 17.1, pi5, NVME_PI),
        DeviceProfile("raspberry-pi-5", "Raspberry Pi 5, microSD card", "board", 8, 17.1, pi5, MICROSD_A2),
        DeviceProfile(
            "raspberry-pi-4",
            "Raspberry Pi 4, microSD card",
            "board",
            4,
            12.8,
            "Raspberry Pi: LPDDR4-3200; its width of 32 bit gives 12.8 GB/s; 4 GB model",
            MICROSD_A2,
        ),
    ):
        DEVICES.add(profile.name, profile)


_register()
