"""What a device makes of the files that are delivered: whether it computes as this machine does, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nas_edge.config import RunConfig
from nas_edge.latency.device import DeviceSource
from nas_edge.runs.result import OnDeviceCheck
from nas_edge.tasks.base import NetworkTask, TaskData

# Test images with which the delivered files are run on the device and here.
CHECKED_IMAGES = 4


def checks_on_device(
    config: RunConfig, device: DeviceSource, files: Mapping[str, bytes], task: NetworkTask, data: TaskData
) -> dict[str, OnDeviceCheck]:
    """Compares outputs, and tests on a device other than this machine; nothing that fails there is an error.

    Args:
        config: of the run: its seed and `export.device_test_s`.
        device: what runs the files.
        files: by precision.
        task: what they are for.
        data: with the test images.
    """
    from nas_edge.export.on_device import check_on_device, quality_on_device

    images, _ = data.arrays(data.split.test[:CHECKED_IMAGES])
    limit_s, checks = config.export.device_test_s, dict[str, OnDeviceCheck]()
    for precision, file in files.items():
        check = check_on_device(file, images, device.run_file, task.same_answer)
        if limit_s and not check.problem and not device.measures_on_host:
            quality = quality_on_device(file, device.run_file, device.info, task, data, config.seed, limit_s)
            check = replace(check, quality=quality)
        checks[precision] = check
    return checks
