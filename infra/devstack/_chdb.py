"""A ClickHouse server (native TCP and HTTP) out of libchdb: it runs clickhouse-local, which can listen.

usage: _chdb.py LIBCHDB CONFIG
"""

import ctypes
import sys

# clickhouse-local ends with its last query, so the last query sleeps
QUERY = (
    "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; "
    "SELECT sleepEachRow(1) FROM numbers(1000000000) FORMAT Null "
    "SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0"
)


def main(library: str, config: str) -> None:
    """Runs until the process is ended."""
    arguments = ["clickhouse", f"--config-file={config}", "--log-level=information", f"--query={QUERY}"]
    run = ctypes.CDLL(library).chdb_query_cmdline
    run.restype = ctypes.c_void_p
    run(len(arguments), (ctypes.c_char_p * len(arguments))(*[argument.encode() for argument in arguments]))


if __name__ == "__main__":
    main(*sys.argv[1:])
