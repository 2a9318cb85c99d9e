"""`python -m device_agents.farm.driver HEAD NODE DEVICE`: what talks to Ray, for one agent, over stdin and stdout.

To the agent it is what `serve` is over SSH: it passes each request on to the `Server` that Ray runs at the device's
host, and its answer back. Of itself it answers "hello", "offers" (what all hosts offer) and "farm" (checks of the
cluster), and says with the same errors where the cluster or the host is not as it should be. It ends when stdin does,
and Ray then ends the actor and frees the device.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from device_agents.checks import Check
from device_agents.device_lock import user_name
from device_agents.errors import DeviceError, DeviceUnavailableError, ProtocolError
from device_agents.farm.actor import DeviceActor
from device_agents.farm.address import RESOURCE_PREFIX, FarmAddress, joined_cluster
from device_agents.remote_frames import LIMITS, checks_json, error_json, rows_json
from device_agents.request_loop import run
from device_agents.scheme import DeviceRow
from device_agents.wording import words_of
from device_agents.worker.frames import PROTOCOL_VERSION, Frame, encode_frame, read_frame

NAMESPACE = "nas_edge"
# A session that was just closed, or killed, frees its device within that time.
_FREED_WITHIN_S = 5.0
_PAUSE_S = 0.2
_ANSWERS_WITHIN_S = 5.0
# Less than an agent waits for a sign of life.
_STARTS_WITHIN_S = 45.0
_ALIVE_WITHIN_S = 10.0
_CLOSES_WITHIN_S = 8.0
_TOKEN_FIX = (
    "put the cluster's token into ~/.ray/auth_token here, as `ray get-auth-token` prints it on a host of it; "
    "for a cluster without token authentication, which whoever reaches it can run code on, set RAY_AUTH_MODE=disabled"
)


class Driver:
    """Answers requests of an agent, see `request_loop.Answering`.

    Args:
        address: The device; without a node, only the farm can be asked about.
    """

    def __init__(self, address: FarmAddress) -> None:
        self._address = address
        self._name = f"{address.node}/{address.device} {os.getpid()} {user_name()}@{socket.gethostname()}"
        self._ray: Any = None
        self._actor: Any = None

    def answer(self, request: Frame) -> Frame:
        """See `Answering`."""
        do = str(request.header.get("do"))
        own: dict[str, Callable[[], dict[str, Any]]] = {
            "hello": lambda: {"protocol": PROTOCOL_VERSION},
            "offers": lambda: {"rows": rows_json(self._offers())},
            "farm": lambda: {"checks": checks_json(self._checks())},
        }
        try:
            return Frame({"done": do, **own[do]()}) if do in own else self._passed_on(request)
        except DeviceError as error:
            problem = error
        except Exception as error:  # Ray raises what it likes
            problem = DeviceUnavailableError(f"Ray failed: {words_of(error)}")
        return Frame({"done": do, "raised": error_json(problem)})

    def is_working(self) -> bool:
        """Whether the actor is alive; until it is, the agent waits only so long."""
        actor = self._actor
        if actor is None:
            return False
        with contextlib.suppress(Exception):  # what becomes of the request says more
            self._ray.get(actor.ping.remote(), timeout=_ALIVE_WITHIN_S)
            return True
        return False

    def close(self) -> None:
        """Ends the actor, which frees the device."""
        if self._actor is not None:
            with contextlib.suppress(Exception):
                closing = self._actor.answer.remote(encode_frame(Frame({"do": "close"})))
                self._ray.get(closing, timeout=_CLOSES_WITHIN_S)
        self._end_actor()
        if self._ray is not None:
            self._ray.shutdown()

    def _offers(self) -> list[DeviceRow]:
        """What the hosts of the cluster offer, sorted."""
        self._connect(self._address.head)
        users = {name: user for name, _, user in map(_read_name, self._names())}
        return [
            DeviceRow(
                str(FarmAddress(node, device, self._address.head)),
                "farm",
                "",
                "in use" if user else "ready",
                f"by {user}" if user else f"{device} at {node}",
            )
            for node, device, _ in sorted(self._offered())
            for user in (users.get(f"{node}/{device}", ""),)
        ]

    def _checks(self) -> list[Check]:
        """Looks at the cluster, and at what Ray runs at the device's host."""
        offers = self._offers()
        actor = self._placed()
        authentication, niceness = self._ray.get(actor.about.remote(), timeout=_STARTS_WITHIN_S)
        nodes, used = sum(node["Alive"] for node in self._ray.nodes()), sum(row.state == "in use" for row in offers)
        found = f"Ray {self._ray.__version__}, {nodes} nodes, {len(offers)} devices, {used} of them in use"
        checks = [Check("farm", "pass", found)]
        if authentication == "token":
            checks.append(Check("authentication", "pass", "by token"))
        else:
            found = "none: whoever reaches a port of Ray can run code on every host of the farm"
            fix = "stop Ray on all hosts and start it with RAY_AUTH_MODE=token, see docs/farm.md"
            checks.append(Check("authentication", "warn", found, fix))
        if niceness > 0:
            node = self._address.node
            found = f"Ray runs what measures at nice {niceness}, so all other programs of {node} come first"
            checks.append(Check("priority", "warn", found, "set RAY_worker_niceness=0 there before `ray start`"))
        return checks

    def _passed_on(self, request: Frame) -> Frame:
        """Has the actor answer. Ray asks once, whatever happens."""
        address, actor = self._address, self._placed()
        ray = self._ray
        try:
            return _frame(ray.get(actor.answer.remote(encode_frame(request))))
        except ray.exceptions.ActorUnavailableError as error:  # Ray starts it again, or finds that its host is gone
            raise DeviceUnavailableError(f"{address} was lost: {_first_line(error)}") from None
        except ray.exceptions.RayError as error:  # it is not started again, for example because its host is gone
            self._end_actor()
            raise self._gone(error) from None

    def _placed(self) -> Any:
        """Returns the device's actor, which Ray starts where the device is plugged in unless it is there."""
        if self._actor is not None:
            return self._actor
        address = self._address
        self._connect(address.head)
        ray, node_id = self._ray, self._node_of(address)
        self._wait_until_free(address)
        actor = self._place(address, node_id)
        try:
            hello = ray.get(actor.answer.remote(encode_frame(Frame({"do": "hello"}))), timeout=_STARTS_WITHIN_S)
            check_protocol(_frame(hello), address.node)
        except ray.exceptions.GetTimeoutError:
            ray.kill(actor)
            if user := self._user_of(address):  # took it first, so ours waited for its device
                raise _in_use(address, user) from None
            raise DeviceUnavailableError(f"{address} did not start within {_STARTS_WITHIN_S:g} s") from None
        except ray.exceptions.RayError as error:
            ray.kill(actor)
            raise self._gone(error) from None
        except DeviceError:
            ray.kill(actor)
            raise
        self._actor = actor
        return actor

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

    def _place(self, address: FarmAddress, node_id: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # Its resource admits one actor at a time; its name says whose.
        return (
            self._ray.remote(DeviceActor)
            .options(
                name=self._name,
                num_cpus=0,
                resources={address.resource: 1},
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=2,  # a request, and pings
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            )
            .remote()
        )

    def _names(self) -> Sequence[str]:
        from ray.util import list_named_actors

        return [found["name"] for found in list_named_actors(all_namespaces=True) if found["namespace"] == NAMESPACE]

    def _user_of(self, address: FarmAddress) -> str:
        """Who else has a device: user@host, or "" for nobody."""
        others = [_read_name(name) for name in self._names() if name != self._name]
        return next((user for device, _, user in others if device == f"{address.node}/{address.device}"), "")

    def _wait_until_free(self, address: FarmAddress) -> None:
        deadline_s = time.monotonic() + _FREED_WITHIN_S
        while user := self._user_of(address):
            if time.monotonic() >= deadline_s:
                raise _in_use(address, user)
            time.sleep(_PAUSE_S)

    def _end_actor(self) -> None:
        if self._actor is not None:
            self._ray.kill(self._actor)
            self._actor = None

    def _gone(self, error: Exception) -> DeviceUnavailableError:
        """What is said of an actor that Ray does not start again."""
        text, address = str(error), self._address
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
    return DeviceUnavailableError(
        f"{address} is in use by {user}", fix="wait until that is done, or use another device"
    )


def _read_name(name: str) -> tuple[str, str, str]:
    """Device, process id and user out of an actor's name."""
    device, _, rest = name.partition(" ")
    pid, _, user = rest.partition(" ")
    return device, pid, user


def _first_line(error: BaseException) -> str:
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return line.split(". ")[0][:300].rstrip(".")


def _frame(answer: object) -> Frame:
    frame = read_frame(io.BytesIO(answer if isinstance(answer, bytes) else b"").read, LIMITS)
    if frame is None:
        raise ProtocolError("An empty answer")
    return frame


def check_protocol(hello: Frame, node: str) -> None:
    """Raises DeviceUnavailableError if what answered "hello" speaks another protocol than this package."""
    if hello.header.get("protocol") != PROTOCOL_VERSION:
        raise DeviceUnavailableError(
            f"What serves the devices of {node} speaks another protocol",
            expected=f"version {PROTOCOL_VERSION}",
            received=f"{hello.header.get('protocol')!r:.80}",
            fix="install the same version of nas_edge there and here",
        )


if __name__ == "__main__":
    head, node, device = sys.argv[1:]
    run(Driver(FarmAddress(node, device, head)))
