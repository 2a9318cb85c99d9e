"""Accelerators that do not exist yet: a space of them, and what a network would take on each.

    space.py        what may be chosen of an accelerator, and the published baseline
    simulator.py    latency, area and energy of networks on accelerators, many at once
    enumeration.py  the best of all accelerators for a network
    calibration.py  whether the simulator orders networks as a device does that exists

Start reading at `space.py`.
"""
