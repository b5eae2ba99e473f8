"""FlowChain SDK."""
