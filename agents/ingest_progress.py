"""Questions for the progress of an execution: asked by threads that serve HTTP, answered by the loop between chunks.

So nobody reads what the loop changes meanwhile, and the loop takes no locks: a deque's ends are safe between threads.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future

from connectors.telemetry import LIMIT_REACHED
from streams.progress import Progress, Typical, progress
from streams.runs import Execution
from streams.tracker import Tracker

MAX_QUESTIONS = 1_000
"""More are not taken: while the loop answers none they would pile up."""
WAIT_S = 5.0
"""A loop that answers no question for so long is stuck, or waits for the brokers."""


class ProgressDesk:
    """Takes questions from any thread; `learn` and `answer` belong to the loop."""

    def __init__(self, trackers: Mapping[int, Tracker], max_chains: int = 10_000) -> None:
        self._trackers = trackers
        self._typical = Typical(max_chains)
        self._questions: deque[tuple[str, str, Future[Progress | None]]] = deque()

    def ask(self, tenant: str, execution: str) -> Progress | None:
        """Return the progress of an execution that is open or remembered here; None = it is not.

        Raises TimeoutError when the loop does not answer, at once when it has not answered many others.
        """
        if len(self._questions) >= MAX_QUESTIONS:
            LIMIT_REACHED.labels("questions_over_limit").inc()
            raise TimeoutError
        question: Future[Progress | None] = Future()
        self._questions.append((tenant, execution, question))
        return question.result(WAIT_S)

    def learn(self, finished: Iterable[Execution]) -> None:
        """Take the durations of executions that are over: the last one of every chain."""
        for (tenant, chain), duration_us in {
            (x.tenant, x.chain): x.duration_us for x in finished if x.status == "completed"
        }.items():
            self._typical.learn(tenant, chain, duration_us)

    def answer(self) -> None:
        """Answer what was asked."""
        while self._questions:
            tenant, execution, question = self._questions.popleft()
            question.set_result(self._find(tenant, execution))

    def _find(self, tenant: str, execution: str) -> Progress | None:
        for tracker in self._trackers.values():
            tracked = tracker.find(tenant, execution)
            if tracked is not None:
                found = tracked.execution
                return progress(found, tracked.rules, self._typical.find(tenant, found.chain), tracker.watermark_us)
        return None
