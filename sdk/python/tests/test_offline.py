"""What needs no cluster."""

import hashlib
import json
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

import clary
from clary import _api, _config, _tls
from clary._channel import Channel
from clary._config import Context
from clary.jobs import job_of
from clary.space import limit_specs, objective_spec, space_spec

PIN = "sha256:" + "0" * 64


class Jobs(unittest.TestCase):
    def test_a_job_says_how_often_it_made_room_for_others(self) -> None:
        said = _api.message("Job")(name="churn", state="running", attempt=3, preempted=2)
        job = job_of(said)
        self.assertEqual((job.name, job.attempt, job.preempted), ("churn", 3, 2))


class Configuration(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "config.json"
        self.environ = {"CLARY_CONFIG": str(self.path)}
        self.write(
            {
                "current": "a",
                "contexts": {
                    "a": {"addresses": ["10.0.0.1", "10.0.0.2:7"], "ca_pin": PIN, "token": "t"},
                    "b": {"addresses": ["[::1]"], "ca_pin": PIN},
                },
            }
        )

    def write(self, value: object, mode: int = 0o600) -> None:
        self.path.write_text(json.dumps(value))
        self.path.chmod(mode)

    def test_the_file_of_clary_login_is_read(self) -> None:
        self.assertEqual(_config.resolve(environ=self.environ), Context(("10.0.0.1:7420", "10.0.0.2:7"), PIN, "t"))
        self.assertEqual(_config.resolve("b", environ=self.environ), Context(("[::1]:7420",), PIN, ""))
        self.assertEqual(_config.resolve(environ=self.environ | {"CLARY_CONTEXT": "b"}).addresses, ("[::1]:7420",))

    def test_the_environment_goes_before_the_file_and_arguments_before_both(self) -> None:
        environ = self.environ | {"CLARY_ADDRESS": "x, y:1", "CLARY_TOKEN": "other"}
        self.assertEqual(_config.resolve(environ=environ), Context(("x:7420", "y:1"), PIN, "other"))
        self.assertEqual(_config.resolve(environ=environ, addresses=["z"], token="own"), Context(("z:7420",), PIN, "own"))
        alone = {"CLARY_ADDRESS": "fe80::1", "CLARY_CA_PIN": PIN, "CLARY_CONFIG": "/nowhere/at/all"}
        self.assertEqual(_config.resolve(environ=alone), Context(("[fe80::1]:7420",), PIN, ""))

    def test_what_is_wrong_is_said_with_the_remedy(self) -> None:
        with self.assertRaisesRegex(clary.NotFound, "there is no context 'c': there are a, b"):
            _config.resolve("c", environ=self.environ)
        with self.assertRaisesRegex(clary.Invalid, "no cluster is known: run clary login"):
            _config.resolve(environ={})
        with self.assertRaisesRegex(clary.Invalid, "ca_pin: 'sha1:0' is not sha256"):
            _config.resolve(environ=self.environ, ca_pin="sha1:0")
        self.write({}, 0o644)
        with self.assertRaisesRegex(clary.Denied, "others may read it .mode 0644.: run chmod 600"):
            _config.resolve(environ=self.environ)
        self.path.chmod(0o600)
        self.path.write_text("{")
        with self.assertRaisesRegex(clary.Invalid, "correct it, or remove it"):
            _config.resolve(environ=self.environ)


class Spaces(unittest.TestCase):
    def test_each_way_of_writing_a_parameter_says_what_it_means(self) -> None:
        self.assertEqual(
            space_spec(
                {
                    "lr": clary.Float(1e-4, 1e-1, "log", default=0.01),
                    "depth": (1, 8),
                    "dropout": (0.0, 0.5),
                    "units": clary.Int(32, 512, step=32),
                    "act": ["relu", "tanh"],
                    "batch": clary.Choice([16, 32], ordered=True),
                    "momentum": clary.Float(0.5, 0.99, when=("opt", ["sgd"])),
                    "seed": 7,
                    "flag": True,
                },
                ["depth < 5"],
            ),
            {
                "parameters": [
                    {"name": "lr", "type": "float", "low": 1e-4, "high": 1e-1, "scale": "log", "default": 0.01},
                    {"name": "depth", "type": "int", "low": 1, "high": 8},
                    {"name": "dropout", "type": "float", "low": 0.0, "high": 0.5},
                    {"name": "units", "type": "int", "low": 32, "high": 512, "step": 32},
                    {"name": "act", "type": "categorical", "choices": ["relu", "tanh"]},
                    {"name": "batch", "type": "ordered", "choices": [16, 32]},
                    {"name": "momentum", "type": "float", "low": 0.5, "high": 0.99, "when": {"parameter": "opt", "in": ["sgd"]}},
                    {"name": "seed", "type": "constant", "value": 7},
                    {"name": "flag", "type": "constant", "value": True},
                ],
                "constraints": ["depth < 5"],
            },
        )

    def test_rubbish_is_refused(self) -> None:
        for wrong in ({}, (1, 2, 3), ("a", "b"), None):
            with self.assertRaisesRegex(clary.Invalid, "is no parameter: give clary.Float"):
                space_spec({"x": wrong})  # type: ignore[dict-item]
        self.assertEqual(objective_spec("max:accuracy"), {"name": "accuracy", "direction": "maximize"})
        self.assertEqual(
            limit_specs(["memory<=800", "acc >= 0.5", "acc<=1"]),
            [{"name": "memory", "max": 800.0}, {"name": "acc", "min": 0.5, "max": 1.0}],
        )
        for wrong_limit in ("memory", "memory<800", "memory<=much", "<=3", "memory<=nan"):
            with self.assertRaisesRegex(clary.Invalid, "give METRIC<=NUMBER"):
                limit_specs([wrong_limit])
        for wrong_objective in ("loss", "min:", "least:loss"):
            with self.assertRaisesRegex(clary.Invalid, "give min:METRIC or max:METRIC"):
                objective_spec(wrong_objective)


def openssl(folder: str, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True).stdout


class Servers(unittest.TestCase):
    """A server of TLS with a CA of its own, which answers nothing."""

    def start(self, *names: str) -> None:
        """Start one whose certificate has the names."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl(folder.name, "req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-days", "2")
        openssl(folder.name, "req", *curve, "-keyout", "key.pem", "-out", "csr.pem", "-subj", "/CN=node")
        Path(folder.name, "names").write_text("subjectAltName=" + ",".join(names))
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2")
        openssl(folder.name, "x509", "-req", "-in", "csr.pem", *sign, "-out", "cert.pem")
        self.ca = Path(folder.name, "ca.pem").read_text()
        chain = Path(folder.name, "chain.pem")
        chain.write_text(Path(folder.name, "cert.pem").read_text() + self.ca)
        spki = openssl(folder.name, "x509", "-in", "ca.pem", "-noout", "-pubkey")
        der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "DER"], input=spki, check=True, capture_output=True).stdout
        self.pin = "sha256:" + hashlib.sha256(der).hexdigest()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(chain, Path(folder.name, "key.pem"))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.heard = threading.Event()
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"

        def serve() -> None:
            while True:
                try:
                    connection, _ = self.listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(connection, server_side=True) as secure:
                        secure.settimeout(5)
                        if secure.recv(1):
                            self.heard.set()
                except OSError:
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.listener.close)
        self.addCleanup(lambda: self.listener.shutdown(2))

    def test_a_ca_is_found_by_its_pin(self) -> None:
        self.start("URI:clary://node/coordinator/a", "DNS:localhost")
        found = _tls.ca_certificate(self.address, self.pin, 5)
        self.assertEqual(ssl.PEM_cert_to_DER_cert(found.decode()), ssl.PEM_cert_to_DER_cert(self.ca))

    def test_another_ca_is_refused(self) -> None:
        self.start("URI:clary://node/coordinator/a", "DNS:localhost")
        with self.assertRaisesRegex(clary.Denied, f"comes from another CA .pin {self.pin}, this context expects {PIN}"):
            _tls.ca_certificate(self.address, PIN, 5)

    def ask(self) -> None:
        client = clary.Client(addresses=self.address, ca_pin=self.pin, token="t", patience=0.5)
        self.addCleanup(client.close)
        client.job("x")

    def test_a_coordinator_gets_the_request(self) -> None:
        self.start("URI:clary://node/coordinator/a", "DNS:localhost")
        with self.assertRaises(clary.Unready):
            self.ask()
        self.assertTrue(self.heard.wait(5))

    def test_a_member_that_is_no_coordinator_gets_no_request(self) -> None:
        self.start("URI:clary://node/agent/a")
        with self.assertRaisesRegex(clary.Denied, "certificate is not one of a coordinator of this cluster"):
            self.ask()
        self.assertFalse(self.heard.is_set())


class Coordinators(unittest.TestCase):
    def test_nobody_who_answers_is_an_error_that_says_who_was_asked(self) -> None:
        channel = Channel(Context(("127.0.0.1:1", "127.0.0.1:2"), PIN, ""), patience=0.2)
        self.addCleanup(channel.close)
        with self.assertRaisesRegex(
            clary.Unready, r"no coordinator answered for 0.2 s .asked 127.0.0.1:1, 127.0.0.1:2.*check that they run"
        ):
            channel.call("Jobs.Get", _api.message("GetJobRequest")(name="x"))


if __name__ == "__main__":
    unittest.main()
