"""`python -m infra.cli` is the `flowchain` command."""

from infra.cli import main

main()
