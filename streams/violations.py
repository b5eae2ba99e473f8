"""Violations: how each broken promise is put in words and identified."""

from schemas.violations import LogPosition, Violation, ViolationType
from streams.ids import derived_id
from streams.runs import Execution, Step


def violation(
    kind: ViolationType,
    execution: Execution,
    time_us: int,
    detail: str,
    *,
    step: str = "",
    component: str = "",
    instance: str = "",
    position: LogPosition | None = None,
    **facts: object,
) -> Violation:
    """Return the violation of one execution; `instance` tells runs of the same step apart."""
    return Violation.model_validate(
        {
            "id": derived_id(kind, execution.tenant, execution.chain, execution.execution, step, instance),
            "type": kind,
            "tenant": execution.tenant,
            "chain": execution.chain,
            "step": step,
            "component": component,
            "execution": execution.execution,
            "user": execution.user or None,
            "tier": execution.tier or None,
            "time_unix_us": time_us,
            "detail": detail[:512],
            "position": position,
            **facts,
        }
    )


def step_violation(
    kind: ViolationType, execution: Execution, step: Step, detail: str, position: LogPosition | None, **facts: object
) -> Violation:
    """Return the violation of one run of a step, at its end."""
    return violation(
        kind,
        execution,
        step.end_us or step.start_us or execution.last_us,
        detail,
        step=step.step,
        component=step.component,
        instance=step.span,
        position=position,
        **facts,
    )


def milliseconds(duration_us: int) -> str:
    """Return a duration for a person."""
    return f"{duration_us / 1000:.1f} ms"
