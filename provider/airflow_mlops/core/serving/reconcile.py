"""The reconciler: brings a server's processes or containers, and the gateway, to the desired state, step by step.

Each step is safe to repeat, and what the next one has to know stands in the store before it begins. So whoever goes
on after a crash, this process started again or another one, ends where one clean run does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_mlops.core.errors import IntegrityError
from airflow_mlops.core.faults import crash_point
from airflow_mlops.core.serving import canary, checks
from airflow_mlops.core.serving.client import ServerClient
from airflow_mlops.core.serving.fleet import Fleet, Instance, verified_copy
from airflow_mlops.core.serving.gateway import Gateway, Slot
from airflow_mlops.core.serving.state import Deployment, ServerState, label, weights

if TYPE_CHECKING:
    from airflow_mlops.core.steps import StepContext

#: Seconds between two looks at what changes by itself.
LOOK_SECONDS = 0.5
#: Seconds that requests may take to end on a server that gets no new ones.
DRAIN_SECONDS = 90.0
#: Seconds that it may take until a server that broke off its answers is known to have ended.
END_SECONDS = 10.0


class Reconciler:
    """Carries out the deployments to one server.

    :param fleet: what runs the models.
    :param gateway: what stands in front of them.
    :param copies: local folder for verified copies of models.
    """

    def __init__(self, context: StepContext, server: str, fleet: Fleet, gateway: Gateway, copies: Path) -> None:
        self.context, self.fleet, self.gateway, self.copies = context, fleet, gateway, copies
        self.state = ServerState(context.store, server)
        self._idle_since: dict[int, float] = {}

    @property
    def server(self) -> str:
        """The server's name."""
        return self.state.name

    def advance(self) -> float | None:
        """Do what can be done now.

        :return: seconds until the next look is worth while; None: nothing is left to do.
        :raises ConflictError: if another process carries out a deployment to this server now.
        :raises CannotReachError: if the gateway or the engine does not answer; nothing is lost by that.
        """
        with self.gateway.driving(self.server):
            live, opened = self.state.live(), self.state.open()
            instances = {live.seq: self.fleet.revive(live)} if live else {}
            if opened is None:
                self._wire(live, None, instances)
                return LOOK_SECONDS if self._clear(live, None) else None
            if opened.withdrawn and opened.phase != "rolling_back":
                return self._give_up(opened, opened.withdrawn)
            step = {
                "requested": self._start,
                "starting": self._wait_for_answers,
                "checking": self._check,
                "canary": self._watch,
                "switching": self._switch,
                "rolling_back": self._roll_back,
            }[opened.phase]
            return step(opened, live, instances)

    def _start(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        self._wire(live, None, instances)
        if self._clear(live, opened):
            return LOOK_SECONDS  # its place at the gateway is not free yet
        try:
            self.fleet.ensure(opened)
        except IntegrityError as error:
            return self._give_up(opened, error.message)
        crash_point("deploy.started")
        self.context.log.info("%s: the server of %s starts", self.server, label(opened.model))
        self.state.note(opened, phase="starting", since=time.time())
        return 0

    def _wait_for_answers(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        instance = self.fleet.ensure(opened)
        if instance.state == "ended":
            return self._give_up(opened, f"it did not start: {instance.detail}")
        with ServerClient(instance.address, timeout=5) as client:
            if client.answers():
                self.state.note(opened, phase="checking")
                return 0
        waited = time.time() - float(opened.progress["since"])
        if waited > float(opened.intent["start_seconds"]):
            return self._give_up(opened, f"it did not answer /ping within {opened.intent['start_seconds']:g} seconds")
        self.state.note(opened)
        return LOOK_SECONDS

    def _check(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        instance = self.fleet.ensure(opened)
        found = opened.progress.get("checks")
        if found is None:
            copy = verified_copy(self.context, opened, self.copies)
            found = checks.run(self.context, opened, instance.address, copy)
            opened = self.state.note(opened, checks=found)
            crash_point("deploy.checked")
        failed = [one for one in found if not one["passed"]]
        instance = self.fleet.ensure(opened)
        if failed and not failed[-1].get("reached", True):
            # Its connections break before the system says that it has ended.
            end = time.monotonic() + END_SECONDS
            while instance.state != "ended" and time.monotonic() < end:
                time.sleep(0.1)
                instance = self.fleet.ensure(opened)
        if instance.state == "ended":
            return self._give_up(opened, f"it ended while it was checked: {instance.detail}")
        if failed:
            return self._give_up(opened, f"check {failed[0]['kind']}: {failed[0]['message']}")
        # It gets no request yet, but the gateway must see that it is well before it does.
        self._wire(live, opened, {**instances, opened.seq: instance})
        status = self.gateway.stats(self.server)[opened.slot].status
        if not status.startswith(("UP", "DRAIN", "no check")):
            if time.time() - float(opened.progress["since"]) > float(opened.intent["start_seconds"]):
                return self._give_up(opened, f"the gateway cannot reach it at {instance.address} ({status})")
            self.state.note(opened)
            return LOOK_SECONDS
        if opened.intent["strategy"] == "canary" and live is not None:
            self.state.note(opened, phase="canary", **canary.begin(opened))
        else:
            self.state.note(opened, phase="switching", since=time.time())
        crash_point("deploy.switching")
        return 0

    def _watch(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        instance = self.fleet.ensure(opened)
        if instance.state == "ended":
            return self._give_up(opened, f"it ended as a canary: {instance.detail}")
        instances = {**instances, opened.seq: instance}
        self._wire(live, opened, instances)
        assert live is not None
        verdict = canary.look(
            self.context,
            self.gateway,
            opened,
            live,
            instances,
            lambda: verified_copy(self.context, opened, self.copies),
        )
        if verdict.failure:
            return self._give_up(self.state.note(opened, **verdict.progress), verdict.failure)
        if verdict.passed:
            self.state.note(opened, **verdict.progress, phase="switching", since=time.time())
            crash_point("deploy.switching")
            return 0
        self.state.note(opened, **verdict.progress)
        return verdict.pause

    def _switch(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        # Once all requests go there it is what serves: an end is repaired as that of any live server is.
        instance = self.fleet.revive(opened)
        self._wire(live, opened, {**instances, opened.seq: instance})
        crash_point("deploy.switched")
        # Nothing is under way on one that has ended.
        waits = live is not None and instances[live.seq].state == "running"
        if waits and live and not self._drained(live.slot, float(opened.progress["since"])):
            self.state.note(opened)
            return LOOK_SECONDS
        self.state.finish(opened.seq, "live")
        crash_point("deploy.finished")
        self.context.log.info("%s: %s serves", self.server, label(opened.model))
        self._clear(self.state.read(opened.seq), None)
        return 0

    def _give_up(self, opened: Deployment, reason: str) -> float:
        """Decide against a deployment; from here on every step leads back, whatever happens to this process."""
        self.context.log.error("%s: %s is not deployed: %s", self.server, label(opened.model), reason)
        self.state.note(opened, phase="rolling_back", reason=reason, since=time.time())
        crash_point("deploy.rolling_back")
        return 0

    def _roll_back(self, opened: Deployment, live: Deployment | None, instances: dict[int, Instance]) -> float:
        instance = self.fleet.ensure(opened) if opened.seq in self.fleet.running(self.server) else None
        self._wire(live, opened, {**instances, **({opened.seq: instance} if instance else {})})
        if instance and instance.state == "running" and not self._drained(opened.slot, float(opened.progress["since"])):
            self.state.note(opened)
            return LOOK_SECONDS
        reason, withdrawn = str(opened.progress["reason"]), opened.withdrawn is not None
        self.state.finish(opened.seq, "rolled_back", reason, withdrawn=withdrawn)
        crash_point("deploy.finished")
        self._wire(live, None, instances)
        self._clear(live, None)
        return 0

    def _wire(self, live: Deployment | None, opened: Deployment | None, instances: dict[int, Instance]) -> None:
        """Have the gateway send requests as the desired state has it."""
        shares = weights(live, opened)
        slots = {
            one.slot: Slot(instances[one.seq].address, shares.get(one.seq, 0))
            for one in (live, opened)
            if one is not None and one.seq in instances
        }
        before = self.gateway.slots().get(self.server, {})
        for seq in self._leftovers(live, opened):
            slot = self.state.read(seq).slot
            if slot not in slots and slot in before:
                slots[slot] = Slot(before[slot].address, 0)
        self.gateway.apply(self.server, slots)

    def _leftovers(self, live: Deployment | None, opened: Deployment | None) -> list[int]:
        wanted = {one.seq for one in (live, opened) if one is not None}
        return [seq for seq in self.fleet.running(self.server) if seq not in wanted]

    def _clear(self, live: Deployment | None, opened: Deployment | None) -> bool:
        """Remove servers that nobody wants and that have no request left; return whether one has."""
        left = False
        for seq in self._leftovers(live, opened):
            one = self.state.read(seq)
            since = self._idle_since.setdefault(seq, time.time())
            over = (live is not None and one.slot == live.slot) or not self.fleet.alive(self.server, seq)
            if over or self._drained(one.slot, since):
                self.fleet.remove(self.server, seq)
                self._idle_since.pop(seq, None)
                self.context.log.info("%s: removed the server of %s", self.server, label(one.model))
            else:
                left = True
        return left

    def _drained(self, slot: str, since: float) -> bool:
        if time.time() - since > DRAIN_SECONDS:
            return True
        now = self.gateway.stats(self.server).get(slot)
        return now is None or now.sessions == 0
