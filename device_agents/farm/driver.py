"""`python -m device_agents.farm.driver`: what talks to Ray, for one agent, over stdin and stdout.

Requests are {"do": "hello" | "list" | "open" | "ask" | "close", ...}; each is answered by one {"done": ...}, which
holds {"failed": ...} (see `messages.describe_error`) where the cluster or the device's host is not as it should be. It
ends when stdin does, and Ray then ends the actor and frees the device.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from device_agents.errors import DeviceError, DeviceUnavailableError
from device_agents.farm.actor import DeviceActor
from device_agents.farm.address import RESOURCE_PREFIX, FarmAddress, joined_cluster
from device_agents.farm.messages import describe_error
from device_agents.wording import words_of
from device_agents.worker.frames import PROTOCOL_VERSION, Frame
from device_agents.worker.stdio import Send, serve

NAMESPACE = "nas_edge"
# A session that was just closed, or killed, frees its device within that time.
_FREED_WITHIN_S = 5.0
_PAUSE_S = 0.2
_ANSWERS_WITHIN_S = 5.0
_TOKEN_FIX = (
    "put the cluster's token into ~/.ray/auth_token here, as `ray get-auth-token` prints it on a host of it; "
    "for a cluster without token authentication, which whoever reaches it can run code on, set RAY_AUTH_MODE=disabled"
)


class Driver:
    """Answers requests of an agent.

    Args:
        send: Sends a frame.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._ray: Any = None
        self._actor: Any = None
        self._address: FarmAddress | None = None

    def answer(self, request: Frame) -> None:
        """Answers one request; what is wrong is reported, not raised."""
        handlers: dict[str, Callable[[Frame], Frame]] = {
            "hello": lambda _: Frame({"done": "hello", "protocol": PROTOCOL_VERSION}),
            "list": self._list,
            "open": self._open,
            "ask": self._ask,
            "close": self._close,
        }
        do = str(request.header.get("do"))
        try:
            self._send(handlers[do](request))
        except DeviceError as error:
            self._send(Frame({"done": do, "failed": describe_error(error)}))
        except Exception as error:  # Ray raises what it likes
            problem = DeviceUnavailableError(f"Ray failed: {words_of(error)}")
            self._send(Frame({"done": do, "failed": describe_error(problem)}))

    def _list(self, request: Frame) -> Frame:
        """What the hosts of the cluster offer: [node, device, who uses it], sorted."""
        self._connect(str(request.header.get("head", "")))
        users = {name: user for name, _, user in map(_read_name, self._names())}
        rows = [[node, device, users.get(f"{node}/{device}", "")] for node, device, _ in self._offered()]
        nodes = [node["NodeName"] for node in self._ray.nodes() if node["Alive"]]
        return Frame({"done": "list", "devices": sorted(rows), "nodes": len(nodes), "ray": self._ray.__version__})

    def _open(self, request: Frame) -> Frame:
        """Has Ray start the device's actor where it is plugged in, unless it is there."""
        header = request.header
        address = FarmAddress(str(header["node"]), str(header["device"]), str(header["head"]))
        self._connect(address.head)
        if self._actor is None:
            node_id = self._node_of(address)
            self._wait_until_free(address)
            self._actor = self._place(address, node_id, str(header["user"]))
        self._address = address
        return Frame({"done": "open"})

    def _ask(self, request: Frame) -> Frame:
        """Passes a message on and returns the answer. Ray asks once, whatever happens."""
        ray, address, limit_s = self._ray, self._address, float(request.header["limit_s"])
        if self._actor is None or address is None:
            raise DeviceUnavailableError("The device is not open")
        try:
            answer = ray.get(self._actor.answer.remote(request.blobs[0]), timeout=limit_s)
        except ray.exceptions.GetTimeoutError:
            pending = self._is_pending()
            self._end_actor()
            if pending:
                raise _in_use(address, self._user_of(address)) from None
            raise DeviceUnavailableError(f"{address} did not answer within {limit_s:g} s") from None
        except ray.exceptions.ActorUnavailableError as error:  # Ray starts it again, or finds that its host is gone
            raise DeviceUnavailableError(f"{address} was lost: {_first_line(error)}") from None
        except ray.exceptions.RayError as error:  # it is not started again, for example because its host is gone
            self._end_actor()
            raise self._gone(address, error) from None
        return Frame({"done": "ask"}, (answer,))

    def _close(self, _: Frame) -> Frame:
        self._end_actor()
        if self._ray is not None:
            self._ray.shutdown()
        self._ray = None
        return Frame({"done": "close"})

    def _connect(self, head: str) -> None:
        if self._ray is not None:
            return
        # A farm without a token is used only by those who say so.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        import ray

        where = _reachable(head or joined_cluster())
        try:
            ray.init(address=where, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray raises what it likes, and says in several lines what it may be
            text = str(error).lower()
            if "token" in text or "auth" in text or "failed to connect" in text:  # somebody answered there
                raise DeviceUnavailableError(
                    f"The Ray cluster at {where} does not let this machine in: {_first_line(error)}", fix=_TOKEN_FIX
                ) from None
            raise DeviceUnavailableError(
                f"This machine is not part of the Ray cluster at {where}: {_first_line(error)}", fix=_join_fix(where)
            ) from None
        self._ray = ray

    def _offered(self) -> list[tuple[str, str, str]]:
        """Node name, device and node id of all that is offered by hosts that are there."""
        return [
            (node["NodeName"], name[len(RESOURCE_PREFIX) :], node["NodeID"])
            for node in self._ray.nodes()
            if node["Alive"]
            for name in node["Resources"]
            if name.startswith(RESOURCE_PREFIX)
        ]

    def _node_of(self, address: FarmAddress) -> str:
        offered = self._offered()
        found = [node_id for node, device, node_id in offered if (node, device) == (address.node, address.device)]
        if len(found) == 1:
            return found[0]
        if found:
            raise DeviceUnavailableError(
                f"{len(found)} nodes are called {address.node} and offer {address.device}",
                fix="if one of them was started anew, wait until Ray notices; else give each its own --node-name",
            )
        alive = sorted({node["NodeName"] for node in self._ray.nodes() if node["Alive"]})
        if address.node not in alive:
            raise DeviceUnavailableError(
                f"No node {address.node} is in the Ray cluster now", expected=f"one of {', '.join(alive)}"
            )
        there = sorted(device for node, device, _ in offered if node == address.node)
        raise DeviceUnavailableError(
            f"The node {address.node} does not offer {address.device}",
            expected=f"one of {', '.join(there)}" if there else None,
            fix=f"""start Ray there with --resources='{{"{address.resource}": 1}}'""",
        )

    def _place(self, address: FarmAddress, node_id: str, user: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Its resource admits one actor at a time; its name says whose.
        return (
            self._ray.remote(DeviceActor)
            .options(
                name=f"{address.node}/{address.device} {os.getpid()} {user}",
                num_cpus=0,
                resources={address.resource: 1},
                max_restarts=-1,
                max_task_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote(address.device)
        )

    def _names(self) -> Sequence[str]:
        from ray.util import list_named_actors

        return [found["name"] for found in list_named_actors(all_namespaces=True) if found["namespace"] == NAMESPACE]

    def _user_of(self, address: FarmAddress) -> str:
        """Who has a device: user@host, or "" for nobody."""
        own = f"{address.node}/{address.device}"
        return next((user for name, _, user in map(_read_name, self._names()) if name == own), "")

    def _wait_until_free(self, address: FarmAddress) -> None:
        deadline_s = time.monotonic() + _FREED_WITHIN_S
        while user := self._user_of(address):
            if time.monotonic() >= deadline_s:
                raise _in_use(address, user)
            time.sleep(_PAUSE_S)

    def _is_pending(self) -> bool:
        """Whether the actor still waits for its device, because another session took it first."""
        try:
            self._ray.get(self._actor.__ray_ready__.remote(), timeout=0.5)
        except self._ray.exceptions.RayError:
            return True
        return False

    def _end_actor(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    def _gone(self, address: FarmAddress, error: Exception) -> DeviceUnavailableError:
        """What is said of an actor that Ray does not start again."""
        text = str(error)
        if "ModuleNotFoundError" in text or "ImportError" in text:
            return DeviceUnavailableError(
                f"The node {address.node} cannot load device_agents: {text.strip().splitlines()[-1][:200]}",
                fix="there, run `pip install 'nas-edge[farm]'` in the environment that Ray was started from",
            )
        return DeviceUnavailableError(f"{address} was lost: {_first_line(error)}")


def _reachable(head: str) -> str:
    """Returns the address of a cluster's head node, where something answers; Ray would wait for minutes."""
    if not head:
        raise DeviceUnavailableError("This machine is not part of a Ray cluster", fix=_join_fix("HEAD:6379"))
    host, _, port = head.rpartition(":")
    if not port.isdecimal():
        raise DeviceUnavailableError("A head node must be named by host and port", received=f"{head!r:.200}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN_S).close()
    except OSError as error:
        raise DeviceUnavailableError(
            f"No head node of a Ray cluster answers at {head}: {words_of(error)}",
            fix="start Ray there, or stop it here (`ray stop`) and join another cluster",
        ) from None
    return head


def _join_fix(head: str) -> str:
    return f"join it with: ray start --address={head} --num-cpus=0"


def _in_use(address: FarmAddress, user: str) -> DeviceUnavailableError:
    who = user or "another session"
    return DeviceUnavailableError(f"{address} is in use by {who}", fix="wait until that is done, or use another device")


def _read_name(name: str) -> tuple[str, str, str]:
    """Device, process id and user out of an actor's name."""
    device, _, rest = name.partition(" ")
    pid, _, user = rest.partition(" ")
    return device, pid, user


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.split(". ")[0][:300].rstrip(".")


def main() -> None:
    """Serves stdin and stdout until stdin ends."""
    serve(lambda send: Driver(send).answer)


if __name__ == "__main__":
    main()
