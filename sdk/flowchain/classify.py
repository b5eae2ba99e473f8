"""What kind of trouble an exception is, so that failures of different services can be counted together.

    data        the input is wrong: values, formats, constraints
    model       a model could not be used: not fitted, wrong shape, refused by its server
    dependency  something this service calls is away or broken
    timeout     it took longer than it may
    capacity    too much at once: memory, disk, quotas, full queues, rate limits
    permission  not allowed: credentials, rights
    cancelled   given up from outside: cancelled tasks, Ctrl-C, exit
    bug         the program is wrong
    unknown     none of these

Libraries are known by the names of their modules and classes: none is imported for it. The host adds its own by
`flowchain.classify(MyError, "data")` or by an attribute `flowchain_category = "data"` of the class or of one error.
"""

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any

UNKNOWN = "unknown"
CATEGORIES = ("data", "model", "dependency", "timeout", "capacity", "permission", "cancelled", "bug", UNKNOWN)
MAX_DEPTH = 8
"""Causes and members of groups are looked at so deep."""

_BY_NAME: dict[str, str] = {
    # The standard library. A subclass goes by its nearest ancestor that is named here.
    "builtins.TimeoutError": "timeout",
    "builtins.ConnectionError": "dependency",
    "builtins.PermissionError": "permission",
    "builtins.OSError": "dependency",
    "builtins.MemoryError": "capacity",
    "builtins.RecursionError": "bug",
    "builtins.BufferError": "capacity",
    "builtins.ValueError": "data",
    "builtins.LookupError": "data",
    "builtins.ArithmeticError": "data",
    "builtins.EOFError": "data",
    "builtins.TypeError": "bug",
    "builtins.AttributeError": "bug",
    "builtins.NameError": "bug",
    "builtins.AssertionError": "bug",
    "builtins.NotImplementedError": "bug",
    "builtins.ImportError": "bug",
    "builtins.SyntaxError": "bug",
    "builtins.KeyboardInterrupt": "cancelled",
    "builtins.SystemExit": "cancelled",
    "builtins.GeneratorExit": "cancelled",
    "asyncio.CancelledError": "cancelled",
    "concurrent.CancelledError": "cancelled",
    "concurrent.BrokenExecutor": "capacity",
    "queue.Full": "capacity",
    "asyncio.QueueFull": "capacity",
    "subprocess.TimeoutExpired": "timeout",
    "subprocess.CalledProcessError": "dependency",
    "http.HTTPException": "dependency",
    "sqlite3.IntegrityError": "data",
    "sqlite3.DataError": "data",
    "sqlite3.ProgrammingError": "bug",
    "sqlite3.Error": "dependency",
    # HTTP clients.
    "httpx.TimeoutException": "timeout",
    "httpx.PoolTimeout": "capacity",
    "httpx.InvalidURL": "bug",
    "httpx.HTTPError": "dependency",
    "requests.Timeout": "timeout",
    "requests.RequestException": "dependency",
    "urllib3.TimeoutError": "timeout",
    "urllib3.HTTPError": "dependency",
    "aiohttp.ServerTimeoutError": "timeout",
    "aiohttp.ClientError": "dependency",
    # Kafka, RPC, queues, caches.
    "kafka.KafkaTimeoutError": "timeout",
    "kafka.KafkaError": "dependency",
    "aiokafka.KafkaTimeoutError": "timeout",
    "aiokafka.KafkaError": "dependency",
    "confluent_kafka.KafkaException": "dependency",
    "cimpl.KafkaException": "dependency",
    "grpc.RpcError": "dependency",
    "redis.TimeoutError": "timeout",
    "redis.RedisError": "dependency",
    "celery.SoftTimeLimitExceeded": "timeout",
    "billiard.SoftTimeLimitExceeded": "timeout",
    # Databases; psycopg's and asyncpg's errors carry a SQLSTATE, which goes before.
    "psycopg.IntegrityError": "data",
    "psycopg.DataError": "data",
    "psycopg.ProgrammingError": "bug",
    "psycopg.Error": "dependency",
    "psycopg_pool.PoolTimeout": "capacity",
    "psycopg2.IntegrityError": "data",
    "psycopg2.DataError": "data",
    "psycopg2.ProgrammingError": "bug",
    "psycopg2.Error": "dependency",
    "asyncpg.PostgresError": "dependency",
    "asyncpg.InterfaceError": "bug",
    "sqlalchemy.IntegrityError": "data",
    "sqlalchemy.DataError": "data",
    "sqlalchemy.TimeoutError": "capacity",
    "sqlalchemy.OperationalError": "dependency",
    "sqlalchemy.SQLAlchemyError": "bug",
    "clickhouse_driver.SocketTimeoutError": "timeout",
    "clickhouse_driver.Error": "dependency",
    "pymongo.ServerSelectionTimeoutError": "timeout",
    "pymongo.DuplicateKeyError": "data",
    "pymongo.PyMongoError": "dependency",
    # Data.
    "pydantic.ValidationError": "data",
    "pydantic_core.ValidationError": "data",
    "msgspec.MsgspecError": "data",
    "jsonschema.ValidationError": "data",
    "marshmallow.ValidationError": "data",
    "pandas.ParserError": "data",
    # Models.
    "torch.OutOfMemoryError": "capacity",
    "sklearn.NotFittedError": "model",
    "openai.RateLimitError": "capacity",
    "openai.APITimeoutError": "timeout",
    "openai.APIConnectionError": "dependency",
    "anthropic.RateLimitError": "capacity",
    "anthropic.APITimeoutError": "timeout",
    "anthropic.APIConnectionError": "dependency",
    # Clouds.
    "botocore.ConnectTimeoutError": "timeout",
    "botocore.ReadTimeoutError": "timeout",
    "botocore.BotoCoreError": "dependency",
    "botocore.ClientError": "dependency",
}
_BY_MODULE: dict[str, str] = dict.fromkeys(
    ("torch", "sklearn", "tensorflow", "keras", "xgboost", "lightgbm", "catboost", "onnxruntime", "transformers",
     "openai", "anthropic", "river"), "model",
)  # fmt: skip
"""Where nothing nearer is known: what any class of the module is."""
_BY_ERRNO = dict.fromkeys(
    (errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EDQUOT, errno.ENOBUFS), "capacity"
) | {errno.ETIMEDOUT: "timeout"}
_BY_SQLSTATE = {
    "08": "dependency", "22": "data", "23": "data", "28": "permission", "40": "dependency", "42": "bug", "53": "capacity",
    "55": "capacity", "57": "dependency", "58": "dependency", "57014": "timeout", "42501": "permission",
}  # fmt: skip
_BY_CODE = {
    # gRPC's statuses, librdkafka's errors, and what botocore calls throttling, by name.
    "DEADLINE_EXCEEDED": "timeout", "RESOURCE_EXHAUSTED": "capacity", "CANCELLED": "cancelled",
    "INVALID_ARGUMENT": "data", "OUT_OF_RANGE": "data", "FAILED_PRECONDITION": "data", "ALREADY_EXISTS": "data",
    "NOT_FOUND": "data", "DATA_LOSS": "data", "PERMISSION_DENIED": "permission", "UNAUTHENTICATED": "permission",
    "UNIMPLEMENTED": "bug", "_TIMED_OUT": "timeout", "_MSG_TIMED_OUT": "timeout", "REQUEST_TIMED_OUT": "timeout",
    "_QUEUE_FULL": "capacity", "MSG_SIZE_TOO_LARGE": "data", "TOPIC_AUTHORIZATION_FAILED": "permission",
    "ThrottlingException": "capacity", "Throttling": "capacity", "SlowDown": "capacity", "AccessDenied": "permission",
    "AccessDeniedException": "permission",
}  # fmt: skip
_GENERIC = frozenset((Exception, BaseException, RuntimeError))
"""Their kind says nothing: a cause says more."""

_registered: dict[type[BaseException], str] = {}
_of_type: dict[type[BaseException], str] = {}
_MAX_TYPES = 10_000


def classify(kind: type[BaseException], category: str) -> None:
    """Say that errors of this type, and of its subclasses, are `category`: one of CATEGORIES, or a name of the host's own."""
    _registered[kind] = category
    _of_type.clear()


def category_of(error: BaseException, depth: int = 0) -> str:
    """Return the category of an error: what it says itself, else what its members or its cause say."""
    own = _own(error)
    if own != UNKNOWN or depth >= MAX_DEPTH:
        return own
    if isinstance(error, BaseExceptionGroup):
        return _of_group(error, depth)
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return UNKNOWN if cause is None else category_of(cause, depth + 1)


def _of_group(group: BaseExceptionGroup[Any], depth: int) -> str:
    """Return what most members are, the first of equals; what nobody knows does not count."""
    found = Counter(category_of(error, depth + 1) for error in group.exceptions)
    del found[UNKNOWN]
    return found.most_common(1)[0][0] if found else UNKNOWN


def _own(error: BaseException) -> str:
    said = getattr(error, "flowchain_category", None)
    if isinstance(said, str) and said:
        return said
    kind = type(error)
    if not any(ancestor in _registered for ancestor in kind.__mro__):
        for detail in (_sqlstate, _status, _code, _errno):
            category = detail(error)
            if category is not None:
                return category
    known = _of_type.get(kind)
    if known is None:
        known = _by_type(kind)
        if len(_of_type) < _MAX_TYPES:
            _of_type[kind] = known
    return known


def _by_type(kind: type[BaseException]) -> str:
    for ancestor in kind.__mro__:
        if ancestor in _registered:
            return _registered[ancestor]
        if ancestor in _GENERIC:
            break
        module = ancestor.__module__.partition(".")[0]
        category = _BY_NAME.get(f"{module}.{ancestor.__name__}")
        if category is not None:
            return category
        if module in _BY_MODULE:
            return _BY_MODULE[module]
    return UNKNOWN


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2]) if isinstance(state, str) else None


def _status(error: BaseException) -> str | None:
    """Return what an HTTP status says, where the error carries one."""
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status_code", None) or getattr(error, "status", None)
    if not isinstance(status, int) or not 400 <= status < 600:
        return None
    known = {401: "permission", 403: "permission", 408: "timeout", 429: "capacity", 503: "capacity", 504: "timeout"}
    return known.get(status) or ("data" if status < 500 else "dependency")


def _code(error: BaseException) -> str | None:
    """Return what a code says by its name: of gRPC, of librdkafka (in the first argument), of botocore."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        details = response.get("Error")
        return _BY_CODE.get(str(details.get("Code"))) if isinstance(details, dict) else None
    first = error.args[0] if error.args else None
    for holder in (error, first):
        code: Callable[[], Any] | None = getattr(holder, "code", None)
        name = getattr(holder, "name", None)
        if callable(name):  # confluent_kafka.KafkaError
            return _BY_CODE.get(str(name()))
        if callable(code):  # grpc.RpcError
            return _BY_CODE.get(str(getattr(code(), "name", "")))
    return None


def _errno(error: BaseException) -> str | None:
    return _BY_ERRNO.get(error.errno or 0) if isinstance(error, OSError) else None
