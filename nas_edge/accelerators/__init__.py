"""Accelerators that do not exist yet: a space of them, and the latency, area and energy of networks on each.

    space.py        the parameters of an accelerator, and the published baseline
    simulator.py    latency, area and energy of networks, on many accelerators at once
    enumeration.py  the best of all accelerators for a network
    calibration.py  whether the simulator ranks networks as a real device does

Start reading at `space.py`.
"""
