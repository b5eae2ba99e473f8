"""The id of a local cluster can be given on a command line."""

from uuid import UUID

from infra.devstack.kafka import _cluster_id


def test_an_id_that_looks_like_an_option_is_not_taken() -> None:
    ids = iter([UUID(bytes=b"\xf8" * 16), UUID(bytes=b"\x00" * 16)])
    assert _cluster_id(lambda: next(ids)) == "A" * 22
