"""Leases on a flow run, as its labels show them (README.md). This module imports nothing that does I/O."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from paradime_flows.prefect_api.labels import LEASE_LABEL_PREFIX

# The first character of a settler's name. It sorts before the first character of every execution. So at the same epoch,
# the lease of an execution is greater than the lease of a settler.
_SETTLER = "-"


class Lease(NamedTuple):
    """The right to act for a flow run. Of two leases, the greater one counts.

    Attributes:
        epoch: How often the lease has been taken, including this time.
        holder: Who has taken it: an execution of a flow run, or a settler, which is a hook or the sweeper.
    """

    epoch: int
    holder: str

    @property
    def is_of_execution(self) -> bool:
        """Whether the holder executes the flow run, or a flow run that replaces it."""
        return not self.holder.startswith(_SETTLER)

    def is_lost(self, labels: Mapping[str, Any] | None) -> bool:
        """Whether another holder has taken a greater lease on a flow run."""
        top = top_lease(labels)
        return top > self and top.holder != self.holder

    @property
    def label(self) -> str:
        """The name of the label that only the holder writes."""
        return f"{LEASE_LABEL_PREFIX}{self.epoch}.{self.holder}"


NO_LEASE = Lease(0, "")


def leases_in(labels: Mapping[str, Any] | None) -> list[Lease]:
    """Return all leases that were taken on a flow run."""
    found = []
    for name in labels or {}:
        epoch, _, holder = name.removeprefix(LEASE_LABEL_PREFIX).partition(".")
        if name.startswith(LEASE_LABEL_PREFIX) and epoch.isdigit():
            found.append(Lease(int(epoch), holder))
    return found


def top_lease(labels: Mapping[str, Any] | None) -> Lease:
    """Return the greatest lease, which is the lease that counts; `NO_LEASE` if there is none."""
    return max(leases_in(labels), default=NO_LEASE)


def top_execution(labels: Mapping[str, Any] | None) -> Lease:
    """Return the lease of the execution that began last; `NO_LEASE` if there was none."""
    return max((lease for lease in leases_in(labels) if lease.is_of_execution), default=NO_LEASE)


def lease_of(holder: str, labels: Mapping[str, Any] | None) -> Lease | None:
    """Return the greatest lease of a holder; None if the holder has taken none."""
    return max((lease for lease in leases_in(labels) if lease.holder == holder), default=None)


def next_lease(labels: Mapping[str, Any] | None, holder: str) -> Lease:
    """Return a lease that is greater than all leases on a flow run."""
    return Lease(top_lease(labels).epoch + 1, holder)


def settlers_lease(seen: Lease, settler: str) -> Lease:
    """Return a lease for a settler.

    The lease is greater than the lease that the settler has seen, and smaller than the next lease of an execution.
    """
    holder = f"{_SETTLER}{settler}"
    return seen if seen.holder == holder else Lease(seen.epoch + 1, holder)


def sign_of_life(at: float, began_at: datetime | None = None) -> str:
    """Return the value of a lease's label.

    Args:
        at: When its holder gave a sign of life, in seconds since the epoch.
        began_at: When the holder began to execute the flow run; None if it does not execute the flow run.
    """
    return f"{at:.0f} {began_at.isoformat() if began_at else ''}".strip()


def last_sign_of_life(labels: Mapping[str, Any] | None) -> float | None:
    """Return when a holder of a lease gave the last sign of life; None if no holder has given a sign."""
    signs = [str((labels or {})[lease.label]).partition(" ")[0] for lease in leases_in(labels)]
    return max((float(sign) for sign in signs if sign.isdigit()), default=None)
