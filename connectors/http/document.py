"""The OpenAPI document, written to docs/openapi.json so that a change of the API shows in review.

usage: python -m connectors.http.document [--check]
"""

import json
import sys
from pathlib import Path

from connectors.http.app import create_app
from connectors.settings import Settings

PATH = Path(__file__).parents[2] / "docs" / "openapi.json"


def document() -> str:
    """Return the document as it is checked in."""
    found = create_app(Settings(_env_file=None)).openapi()
    return json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Write the document, or say whether it is as the code is."""
    if "--check" not in sys.argv[1:]:
        PATH.write_text(document(), encoding="utf-8")
    elif not PATH.exists() or PATH.read_text(encoding="utf-8") != document():
        sys.exit("docs/openapi.json is not what the code says: `make contract` writes it anew")


if __name__ == "__main__":
    main()
