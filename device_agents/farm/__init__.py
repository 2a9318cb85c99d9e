"""Devices of a lab, plugged in at many hosts that form a Ray cluster: `farm:NODE/DEVICE`.

    RemoteAgent --frames--> driver (a process, the only one here that loads Ray) --Ray--> DeviceActor at the device's
                                                                                          host, a `serve.Server`

Ray places the actor where the device is plugged in, tells when a host is gone, and starts an actor that crashed again.
Which device takes a candidate, and what becomes of one whose device is lost, is decided by `device_agents.pool` as for
all devices: Ray never asks twice. Only bytes cross: the frames of `remote_frames`, as over SSH.

The driver is a process of its own because Ray ends the process that uses it, a minute after the head node is lost, and
takes over its signal handlers. A search outlives that: its devices are lost, and come back with the head node.
"""
