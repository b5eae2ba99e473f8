"""The chains that this service can run, by tenant, and the functions that run them.

A chain that names no tenant is every tenant's; a tenant's own goes before it, and another tenant's is never found.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flowchain.engines import Function
from flowchain.results import ChainExecution, UserContext
from flowchain.runner import ChainRunner

T = TypeVar("T")


class ChainRegistry:
    """Runners by tenant and chain, and chains by the names of business workflows."""

    def __init__(self) -> None:
        self._runners: dict[tuple[str | None, str], ChainRunner] = {}
        self._workflows: dict[tuple[str | None, str], str] = {}

    def register_chain(
        self,
        definition: Mapping[str, Any] | str | Path,
        functions: Mapping[str, Function],
        *,
        workflow: str | None = None,
        **options: Any,
    ) -> str:
        """Make a chain known, in place of an older one of the same name and tenant; return its id, which is its name.

        `workflow`: what the business calls it; its name where left out. `options`: of ChainRunner.
        """
        runner = ChainRunner(definition, functions, **options)
        plan = runner.plan
        self._runners[plan.tenant, plan.chain] = runner
        self._workflows[plan.tenant, workflow or plan.chain] = plan.chain
        return plan.chain

    def runner(self, chain_id: str, tenant: str | None = None) -> ChainRunner:
        """Return what runs a chain for a tenant; LookupError where there is none."""
        return self._find(self._runners, tenant, chain_id, "chain")

    def get_workflow_chain_id(self, workflow_name: str, tenant: str | None = None) -> str:
        """Return the chain of a business workflow; LookupError where there is none."""
        return self._find(self._workflows, tenant, workflow_name, "workflow")

    @staticmethod
    def _find(table: Mapping[tuple[str | None, str], T], tenant: str | None, name: str, what: str) -> T:
        for owner in (tenant, None):
            if (owner, name) in table:
                return table[owner, name]
        raise LookupError(f"no {what} {name!r}" + (f" for tenant {tenant!r}" if tenant else ""))

    def execute_chain(
        self, chain_id: str, input_data: Any = None, user_context: UserContext | None = None
    ) -> ChainExecution:
        """Run a chain step by step: what a step returns is what the next one is given."""
        user = user_context or UserContext()
        return self.runner(chain_id, user.tenant_id).run(input_data, user)

    async def execute_user_chain(
        self, chain_id: str, user_context: UserContext, input_data: Any = None
    ) -> ChainExecution:
        """Run a chain for a user, with the user's tenant's own definition where it has one."""
        return await self.runner(chain_id, user_context.tenant_id).run_async(input_data, user_context)

    async def execute_business_workflow(
        self, workflow_name: str, user_context: UserContext, input_data: Any = None
    ) -> ChainExecution:
        """Run the chain that a business workflow is, for a user."""
        chain_id = self.get_workflow_chain_id(workflow_name, user_context.tenant_id)
        return await self.execute_user_chain(chain_id, user_context, input_data)


_registry = ChainRegistry()
register_chain = _registry.register_chain
execute_chain = _registry.execute_chain
execute_user_chain = _registry.execute_user_chain
execute_business_workflow = _registry.execute_business_workflow
