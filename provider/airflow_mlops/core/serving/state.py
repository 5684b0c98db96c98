"""The desired state of a model server: numbered deployments in the store.

Deployment *n* of a server is a few objects:

``n.intent.json``
    who wants which model to serve, by which strategy, after which checks. Made by conditional create, and only when
    *n - 1* has its outcome: of two deployments at once one gets the number.
``n.progress.json``
    how far it is, written by whoever carries it out, with a lease. It can be read at any time: it is whole.
``n.withdrawal.json``
    who wanted it does so no longer; made once. Whoever carries it out takes it back from there.
``n.outcome.json``
    ``live``, ``rolled_back`` with the reason, or ``abandoned``; made once, by conditional create.

What the gateway shall send to whom follows from these objects alone (:func:`weights`), so it survives any process.
"""

from __future__ import annotations

import dataclasses
import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from airflow_mlops.core.errors import SpecError
from airflow_mlops.core.registry.ledger import lease_seconds
from airflow_mlops.core.store import Store
from airflow_mlops.core.vocabulary import SCHEMA, utc_now

FOLDER = "servers"
SLOTS = ("blue", "green")
#: The phases of a deployment, in their order; ``rolling_back`` may follow each of them.
PHASES = ("requested", "starting", "checking", "canary", "switching", "rolling_back")

State = Literal["open", "live", "rolled_back", "abandoned"]


def check_server(name: Any) -> str:
    """Return a server's name.

    :raises SpecError: for one that cannot stand in an address and in the gateway's configuration.
    """
    # The gateway answers for itself at /gateway.
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,47}", name) or name == "gateway":
        raise SpecError(
            f"server must be a name of small letters, digits, '-' and '_', at most 48, and not 'gateway', as it is "
            f"part of an address; got {name!r}"
        )
    return name


@dataclass(frozen=True)
class Deployment:
    """One deployment to a server.

    :param intent: what is wanted.
    :param progress: how far it is; empty before anybody began.
    :param outcome: None while it is open.
    :param withdrawn: why it is wanted no longer, or None.
    """

    seq: int
    intent: dict[str, Any]
    progress: dict[str, Any] = field(default_factory=dict)
    outcome: dict[str, Any] | None = None
    withdrawn: str | None = None

    @property
    def server(self) -> str:
        """The server's name."""
        return str(self.intent["server"])

    @property
    def state(self) -> State:
        """``open``, ``live`` (it went live; a later one may have replaced it), ``rolled_back`` or ``abandoned``."""
        return self.outcome["state"] if self.outcome else "open"

    @property
    def phase(self) -> str:
        """Where an open one is."""
        return str(self.progress.get("phase") or PHASES[0])

    @property
    def digest(self) -> str:
        """The digest of its model."""
        return str(self.intent["model"]["digest"])

    @property
    def model(self) -> dict[str, Any]:
        """The ref of its model."""
        model: dict[str, Any] = self.intent["model"]
        return model

    @property
    def slot(self) -> str:
        """Its place at the gateway."""
        return str(self.intent["slot"])

    @property
    def held(self) -> bool:
        """Whether somebody carries an open one out, as far as their lease tells."""
        return time.time() < float(self.progress.get("lease_until") or self.intent["lease_until"])

    def __str__(self) -> str:
        who = self.intent.get("by") or self.intent.get("key") or "somebody"
        return f"deployment {self.seq} ({label(self.model)} by {who})"


def label(model: dict[str, Any]) -> str:
    """Return what people call a model: ``name/version``, else its URI."""
    if model.get("name") and model.get("version"):
        return f"{model['name']}/{model['version']}"
    return str(model.get("uri"))


class ServerState:
    """The objects of one server.

    :param store: the store that holds them.
    :param name: the server's name.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = check_server(name)
        self.folder = f"{FOLDER}/{self.name}"
        self._settled: dict[int, Deployment] = {}

    def last(self) -> int:
        """Return the number of the last deployment, 0 for none."""
        return max((int(key.rpartition("/")[2][:8]) for key in self.store.keys(self.folder)), default=0)

    def read(self, seq: int) -> Deployment:
        """Return one deployment as it stands now.

        :raises NotFoundError: if there is none of that number.
        """
        if seq in self._settled:
            return self._settled[seq]
        # The outcome first: one that is read as open may be done by now, never the other way round.
        outcome = self.store.find_json(self._key(seq, "outcome"))
        intent: dict[str, Any] = self.store.get_json(self._key(seq, "intent"))
        progress = self.store.find_json(self._key(seq, "progress")) or {}
        if outcome is not None:
            withdrawn = outcome["reason"] if outcome.get("withdrawn") else None
            self._settled[seq] = Deployment(seq, intent, progress, outcome, withdrawn)
            return self._settled[seq]
        withdrawal = self.store.find_json(self._key(seq, "withdrawal"))
        return Deployment(seq, intent, progress, None, withdrawal["reason"] if withdrawal else None)

    def open(self) -> Deployment | None:
        """Return the deployment that has no outcome yet, or None."""
        last = self.last()
        found = self.read(last) if last else None
        return found if found and found.outcome is None else None

    def live(self) -> Deployment | None:
        """Return the deployment that serves, or None."""
        return next((one for one in self.backwards() if one.state == "live"), None)

    def backwards(self) -> Any:
        """Yield the deployments, the last one first."""
        for seq in range(self.last(), 0, -1):
            yield self.read(seq)

    def begin(self, seq: int, intent: dict[str, Any]) -> bool:
        """Create the intent of a number; return whether it is ours."""
        whole = {
            "schema": SCHEMA,
            "kind": "server_deployment",
            "server": self.name,
            "seq": seq,
            **intent,
            "at": utc_now(),
            "lease_until": time.time() + lease_seconds(),
        }
        return self.store.put_json(self._key(seq, "intent"), whole, if_absent=True)

    def note(self, deployment: Deployment, **progress: Any) -> Deployment:
        """Write how far a deployment is, on top of what stands there, and renew the lease."""
        whole = {
            **deployment.progress,
            **progress,
            "schema": SCHEMA,
            "lease_until": time.time() + lease_seconds(),
        }
        self.store.put_json(self._key(deployment.seq, "progress"), whole)
        return dataclasses.replace(deployment, progress=whole)

    def withdraw(self, seq: int, reason: str) -> bool:
        """Have a deployment taken back; return whether it is not too late for that."""
        if self.read(seq).outcome is not None:
            return False
        withdrawal = {"schema": SCHEMA, "reason": reason, "at": utc_now()}
        self.store.put_json(self._key(seq, "withdrawal"), withdrawal, if_absent=True)
        return True

    def finish(self, seq: int, state: State, reason: str | None = None, *, withdrawn: bool = False) -> bool:
        """Create the outcome of a number; return whether it is ours."""
        outcome = {"schema": SCHEMA, "state": state, "reason": reason, "withdrawn": withdrawn, "at": utc_now()}
        return self.store.put_json(self._key(seq, "outcome"), outcome, if_absent=True)

    def report(self, seq: int, uri: str) -> None:
        """Remember that a deployment's outcome was told."""
        self.store.put_json(self._key(seq, "report"), {"schema": SCHEMA, "report_uri": uri}, if_absent=True)

    def reported(self, seq: int) -> bool:
        """Return whether a deployment's outcome was told."""
        return self.store.exists(self._key(seq, "report"))

    def _key(self, seq: int, kind: str) -> str:
        return f"{self.folder}/{seq:08d}.{kind}.json"


def servers(store: Store) -> list[str]:
    """Return the names of all servers that anything was ever deployed to."""
    return sorted({key.split("/")[1] for key in store.keys(FOLDER) if key.count("/") == 2})


def weights(live: Deployment | None, opened: Deployment | None) -> dict[int, int]:
    """Return the share of the requests that each deployment gets, in percent.

    Who has 0 gets no new request, and ends those it has.
    """
    found = {} if live is None else {live.seq: 100}
    if opened is None:
        return found
    if opened.phase == "switching":
        return {**dict.fromkeys(found, 0), opened.seq: 100}
    share = int(opened.progress.get("weight") or 0) if opened.phase == "canary" else 0
    return {**dict.fromkeys(found, 100 - share), opened.seq: share}
