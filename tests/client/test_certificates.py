"""A company's own certificates: how they become trusted, and the error before."""

from __future__ import annotations

import datetime as dt
import json
import re
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import certifi
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from support.credentials import credentials_for

from paradime_blocks import BoltRequestError, BoltUnavailable, ParadimeCredentials
from paradime_blocks.client.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONCE = RetryPolicy(attempts=1)
WAYS_TO_TRUST = ["ca_bundle", "PARADIME_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"]


class Bolt(BaseHTTPRequestHandler):
    """Has one run, and one file whose signed link leads to this server again."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        link = f"https://localhost:{self.server.server_address[1]}/file"
        reply = {"boltRunStatus": {"ok": True, "state": "RUNNING"}, "boltResourceUrl": {"url": link}}
        body = json.dumps({"data": reply}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"a file")

    def log_message(self, *_):
        pass


class Endpoint:
    """The address of a Bolt with an unknown certificate."""

    api_key = "a-key"
    api_secret = "a-secret"
    workspace_uid = None
    bearer = False

    def __init__(self, port: int, certificate: Path) -> None:
        self.api_endpoint = f"https://localhost:{port}/graphql"
        self.certificate = str(certificate)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.timezone.utc)
    day = dt.timedelta(days=1)
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - day, now + day
        )
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "certificate.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def endpoint(certificate: tuple[Path, Path]) -> Iterator[Endpoint]:
    """A Bolt behind TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Bolt)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Endpoint(server.server_address[1], certificate[0])
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _no_certificates(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


async def test_the_error_for_an_untrusted_certificate_names_the_settings(endpoint, monkeypatch):
    """Most people try REQUESTS_CA_BUNDLE, which has no effect."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", endpoint.certificate)
    async with credentials_for(endpoint).get_client(retry_policy=ONCE) as client:
        with pytest.raises(BoltUnavailable) as caught:
            await client.get_bolt_run(1)
    assert [word for word in WAYS_TO_TRUST if word not in str(caught.value)] == []
    assert not caught.value.may_have_acted


@pytest.mark.parametrize("variable", ["PARADIME_CA_BUNDLE", "SSL_CERT_FILE"])
async def test_a_company_certificate_is_trusted_by_a_variable(endpoint, monkeypatch, variable):
    """There is a variable of the package, and one of OpenSSL."""
    for name in ("api_endpoint", "api_key", "api_secret"):
        monkeypatch.setenv(f"PARADIME_{name.upper()}", getattr(endpoint, name))
    monkeypatch.setenv(variable, endpoint.certificate)
    async with ParadimeCredentials.from_env().get_client(retry_policy=ONCE) as client:
        assert (await client.get_bolt_run(1)).state == "RUNNING"


async def test_a_company_certificate_is_trusted_by_the_block(endpoint):
    """This includes the files of a run, which are on another server."""
    block = credentials_for(endpoint, ca_bundle=endpoint.certificate)
    async with block.get_client(retry_policy=ONCE) as client:
        assert (await client.get_bolt_run(1)).state == "RUNNING"
        assert await client.download_bolt_resource(1) == b"a file"


async def test_a_bundle_is_trusted_besides_the_usual_certificates(endpoint):
    """Some requests do not go through the company's proxy."""
    usual = len(ssl.create_default_context(cafile=certifi.where()).get_ca_certs())
    settings = credentials_for(endpoint, ca_bundle=endpoint.certificate).get_client().settings
    assert len(settings.http_options()["verify"].get_ca_certs()) == usual + 1


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_bundle_that_cannot_be_read_is_named(endpoint, tmp_path, content):
    """It may be missing, or contain something else."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(BoltRequestError, match=re.escape(str(bundle))) as caught:
        await credentials_for(endpoint, ca_bundle=str(bundle)).get_client().__aenter__()
    assert "PEM file" in str(caught.value)


async def test_the_error_for_an_untrusted_store_names_the_settings(endpoint, monkeypatch):
    """The endpoint may be trusted, but the store of the files may not."""
    block = credentials_for(endpoint, ca_bundle=endpoint.certificate)
    async with block.get_client(retry_policy=ONCE) as client:
        # The download opens a new connection, with the settings of that time.
        client.settings = credentials_for(endpoint).get_client().settings
        with pytest.raises(BoltUnavailable, match="SSL_CERT_FILE"):
            await client.download_bolt_resource(1)
