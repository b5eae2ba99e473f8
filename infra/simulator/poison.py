"""Records that are no events, one of each kind of wrong."""

_GOOD_START = (
    b'{"type":"step.started","chain":"mt5_to_database","execution":"poison","time_unix_us":1750000000000000,'
)

POISON = (
    b"not json at all",
    b'{"type":"step.started","chain":"mt5_to_database"',
    b"",
    b"null",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00broken utf-8",
    _GOOD_START + b'"step":"\xff"}',
    _GOOD_START + b'"step":"mt5_ingestion","unheard_of":1}',
    _GOOD_START + b'"component":"data-bridge"}',
    _GOOD_START + b'"step":42}',
    _GOOD_START + b'"step":"mt5_ingestion","attempt":0}',
    _GOOD_START + b'"step":""}',
    b'{"type":"step.exploded","chain":"c","execution":"poison","time_unix_us":1750000000000000,"step":"s"}',
    b'{"type":"step.started","chain":"c","execution":"poison","time_unix_us":"yesterday","step":"s"}',
    b'{"type":"step.started","chain":"c","execution":"poison","time_unix_us":1750000000000000000,"step":"s"}',
    b'{"chain":"c","execution":"poison","time_unix_us":1750000000000000,"step":"s"}',
)
