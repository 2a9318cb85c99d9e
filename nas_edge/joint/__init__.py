"""What is searched jointly with a network, by name.

    none          nothing: the network alone
    accelerator   the accelerator that is to run it, simulated, see `accelerator.py`
    deployment    how it is deployed on the device, measured, see `deployment.py`

A new kind is one file with its settings and a function that extends a space, and one line in `JOINTS`. Other packages
add theirs by entry points of the group `nas_edge.joints`.
"""

from __future__ import annotations

from nas_edge.errors import ConfigError
from nas_edge.joint.accelerator import AcceleratorSettings, with_accelerators
from nas_edge.joint.deployment import DeploymentSettings, with_deployments
from nas_edge.joint.space import JointSettings, JointSpace
from nas_edge.registry import Entry, Registry
from nas_edge.spaces.decisions import NetworkSpace, SearchSpace

JOINTS: Registry[SearchSpace] = Registry(
    "kind",
    "kind of joint search",
    "nas_edge.joints",
    {
        "none": Entry(JointSettings, lambda settings, space: space, "the network alone"),
        "accelerator": Entry(AcceleratorSettings, with_accelerators, "the accelerator that is to run it, simulated"),
        "deployment": Entry(DeploymentSettings, with_deployments, "how it is deployed on the device, measured"),
    },
    made=SearchSpace,
)


def joint_space(settings: JointSettings, space: SearchSpace) -> SearchSpace:
    """The space, extended by what is searched jointly.

    Raises:
        ConfigError: for a space without networks.
    """
    if settings.widens and not isinstance(space, NetworkSpace):
        raise ConfigError(
            f"joint.kind={settings.kind} requires a space of networks, which {space.name} is not",
            fix="leave out --joint",
        )
    return JOINTS.make(settings, space)


__all__ = ["JOINTS", "JointSettings", "JointSpace", "joint_space"]
