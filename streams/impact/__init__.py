"""Impact: anomalies and violations become incidents, with suspects upstream and the blast radius downstream."""

from streams.impact.settings import ImpactSettings
from streams.impact.stage import ImpactStage

__all__ = ["ImpactSettings", "ImpactStage"]
