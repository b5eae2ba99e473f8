"""Parameters that many operations take: names and ids, as the contract bounds them."""

from typing import Annotated

from fastapi import Path, Query

from schemas.base import WITHOUT_CONTROLS

Named = Annotated[str, Query(max_length=128, pattern=WITHOUT_CONTROLS)]
"""A name that is asked for; any where left out."""
NameInPath = Annotated[str, Path(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS)]
IdInPath = Annotated[str, Path(min_length=1, max_length=64, pattern=WITHOUT_CONTROLS)]
