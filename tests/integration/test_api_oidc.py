"""Tokens of an OpenID provider: what is taken, and what is not."""

import hmac
import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from helpers_api import Api, running_api

from infra.devstack import Stack

ISSUER, AUDIENCE, KID = "https://login.example.test", "flowchain", "k1"


@pytest.fixture(scope="module")
def private() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


@pytest.fixture(scope="module")
def jwks(private: rsa.RSAPrivateKey) -> Iterator[str]:
    """A provider that serves one public key."""
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key()))
    body = json.dumps({"keys": [{**key, "kid": KID, "use": "sig", "alg": "RS256"}]}).encode()

    class Provider(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/keys"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def api(stack: Stack, jwks: str) -> Iterator[Api]:
    with running_api(stack, oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks_url=jwks) as running:
        yield running


def claims(**more: Any) -> dict[str, Any]:
    return {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "exp": int(time.time()) + 300, "tenant": "acme", "role": "operator", **more}


def confused(public: bytes) -> str:
    """Return a token that is signed with the provider's public key as if that were a shared secret."""
    head, body = (urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "HS256", "kid": KID}, claims()))
    signature = urlsafe_b64encode(hmac.digest(public, head + b"." + body, "sha256")).rstrip(b"=")
    return b".".join((head, body, signature)).decode()


def asked(api: Api, token: str, path: str = "/v1/me") -> tuple[int, dict[str, Any]]:
    answer = api.client.get(path, headers={"Authorization": f"Bearer {token}"})
    return answer.status_code, answer.json()


def test_a_token_stands_for_its_subject(api: Api, private: rsa.RSAPrivateKey) -> None:
    status, me = asked(api, jwt.encode(claims(), private, "RS256", headers={"kid": KID}))
    assert (status, me["principal"], me["tenant"], me["role"], me["requests_per_minute"]) == (200, "oidc:u1", "acme", "operator", 6000)
    several = jwt.encode(claims(role=["something", "viewer", "admin"]), private, "RS256", headers={"kid": KID})
    assert asked(api, several)[1]["role"] == "admin"
    assert asked(api, several, "/v1/me?tenant=globex")[0] == 403
    assert asked(api, several, "/v1/tenants")[0] == 403


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"exp": 1}, 401), ({"iss": "https://elsewhere.example.test"}, 401), ({"aud": "another"}, 401), ({"nbf": 4_000_000_000}, 401),
        ({"role": "root"}, 403), ({"role": None}, 403), ({"tenant": ""}, 403), ({"tenant": None}, 403), ({"tenant": 7}, 403),
    ],
)  # fmt: skip
def test_claims_that_do_not_do(api: Api, private: rsa.RSAPrivateKey, more: dict[str, Any], status: int) -> None:
    assert asked(api, jwt.encode(claims(**more), private, "RS256", headers={"kid": KID}))[0] == status


def test_signatures_that_do_not_do(api: Api, private: rsa.RSAPrivateKey) -> None:
    other = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    tokens = [
        jwt.encode(claims(), other, "RS256", headers={"kid": KID}), jwt.encode(claims(), private, "RS256", headers={"kid": "unknown"}),
        confused(public), jwt.encode(claims(), None, "none", headers={"kid": KID}), "rubbish", "a.b.c",
    ]  # fmt: skip
    assert [asked(api, token)[0] for token in tokens] == [401] * len(tokens)


def test_keys_work_beside_tokens(api: Api) -> None:
    assert api.get("/v1/me")["tenant"] == "acme"
