"""The joint space of `joint.py` as a package of its own."""

from __future__ import annotations

from pathlib import Path

from tests.support.packages import install

GROUPS = {
    "nas_edge.spaces": {"joint": "joint:space", "joint-networks": "joint:networks"},
    "nas_edge.latency_sources": {"elements": "joint:latency"},
    "nas_edge.quality_sources": {"parameters": "joint:quality"},
}


def install_joint(site: Path) -> str:
    """Installs it in a folder of the module path; returns its source."""
    source = Path(__file__).with_name("joint.py").read_text(encoding="utf-8")
    install(site, "my-joint", GROUPS, {"joint": source})
    return source
