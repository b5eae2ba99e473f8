"""The finished executions of one source partition as they truly are, looked up one by one."""

from collections.abc import Iterator, Mapping

import msgspec

from infra.verification.oracle import Oracle
from infra.verification.published import pack_execution
from infra.verification.steps import Run
from schemas.internal import Execution

decode = msgspec.msgpack.Decoder(Execution).decode


class Executions(Mapping[Run, bytes]):
    """Packed records by run, made when they are asked for: only the compact form is kept."""

    def __init__(self, oracle: Oracle, committed: int) -> None:
        """`committed`: what changed at this offset of the source or later is not settled."""
        self._finished = oracle.finished
        self.unsettled = {run for run, kept in self._finished.items() if kept.changed >= committed}
        self._runs: dict[tuple[str, str], list[Run]] = {}
        for run, x in self._decoded():
            self._runs.setdefault((x.tenant, x.execution), []).append(run)

    def __getitem__(self, run: Run) -> bytes:
        return pack_execution(decode(self._finished[run].record))

    def __iter__(self) -> Iterator[Run]:
        return iter(self._finished)

    def __len__(self) -> int:
        return len(self._finished)

    @property
    def keys_of_runs(self) -> list[tuple[str, str]]:
        """(tenant, execution id) of all."""
        return list(self._runs)

    def runs(self, tenant: str, execution: str) -> list[Execution]:
        """Return the executions of that name in the order in which a database lets one replace another."""
        kept = [self._finished[run] for run in self._runs.get((tenant, execution), ())]
        decoded = [(decode(one.record), one) for one in kept]
        return [x for x, one in sorted(decoded, key=lambda pair: (pair[0].revision, pair[1].changed))]

    def is_settled(self, tenant: str, execution: str) -> bool:
        """Tell whether none of that name has changed since the pipeline's last commit."""
        return self.unsettled.isdisjoint(self._runs.get((tenant, execution), ()))

    def _decoded(self) -> Iterator[tuple[Run, Execution]]:
        return ((run, decode(kept.record)) for run, kept in self._finished.items())
