"""Endpoints: asking routers that stand in for a cluster's, and a real cluster: that of CLARY_CONFIG."""

import http.server
import json
import os
import threading
import time
import unittest
from typing import Any

import clary
from clary.predictor import Predictor, Router, decode, encode


class Stand(http.server.BaseHTTPRequestHandler):
    """A router that answers with what it was asked."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, dict[str, str], bytes]] = []
    status = 200
    cut = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Stand.asked.append((self.path, dict(self.headers.items()), body))
        if Stand.cut:
            self.close_connection = True
            return
        answer = body if Stand.status == 200 else json.dumps({"error": "the queue is full"}).encode()
        self.send_response(Stand.status)
        self.send_header("Content-Type", self.headers.get("Content-Type", ""))
        self.send_header("X-Amzn-Invoked-Production-Variant", "blue")
        self.send_header("X-Clary-Inference-Id", "id-1")
        self.send_header("X-Request-Id", "r1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


class Asking(unittest.TestCase):
    def setUp(self) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stand)
        thread = threading.Thread(target=self.server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Stand.asked, Stand.status, Stand.cut = [], 200, False

    def predictor(self, *urls: str) -> Predictor:
        predictor = Predictor("churn", lambda: [Router(url) for url in urls or (self.url,)], "sha256:" + "0" * 64, "token", 5.0)
        self.addCleanup(predictor.close)
        return predictor

    def test_rows_go_as_json_and_headers_as_sagemakers(self) -> None:
        answer = self.predictor().predict([[1, 2]], variant="green", session="s", inference_id="i", accept="application/json")
        path, headers, body = Stand.asked[0]
        self.assertEqual((path, json.loads(body)), ("/endpoints/churn/invocations", {"instances": [[1, 2]]}))
        self.assertEqual(headers["Authorization"], "Bearer token")
        self.assertEqual(headers["X-Amzn-SageMaker-Target-Variant"], "green")
        self.assertEqual((headers["X-Amzn-SageMaker-Session-Id"], headers["X-Amzn-SageMaker-Inference-Id"]), ("s", "i"))
        self.assertEqual((answer.value, answer.variant, answer.inference_id), ({"instances": [[1, 2]]}, "blue", "id-1"))

    def test_a_text_is_csv_and_bytes_are_what_they_are_said_to_be(self) -> None:
        self.assertEqual(self.predictor().predict("1,2\n3,4\n").value, [["1", "2"], ["3", "4"]])
        self.assertEqual(self.predictor().predict(b"\x00", content_type="application/x-npy").value, b"\x00")
        self.assertEqual(encode([[1, "a,b"]], "text/csv"), (b'1,"a,b"\n', "text/csv"))
        self.assertEqual(decode(b'{"a": 1}\n{"a": 2}\n', "application/jsonlines"), [{"a": 1}, {"a": 2}])
        with self.assertRaisesRegex(clary.Invalid, "say what the bytes are"):
            self.predictor().predict(b"\x00")
        with self.assertRaisesRegex(clary.Invalid, "finite"):
            self.predictor().predict([[float("nan")]])

    def test_what_no_router_took_is_brought_to_the_next(self) -> None:
        predictor = self.predictor("http://127.0.0.1:1", self.url)
        for _ in range(2):
            predictor.predict("1,2")
        self.assertEqual(len(Stand.asked), 2)
        with self.assertRaisesRegex(clary.Unready, "no router can be reached: http://127.0.0.1:1: .*refused"):
            self.predictor("http://127.0.0.1:1").predict("1,2")

    def test_what_a_router_may_have_taken_is_not_sent_again(self) -> None:
        predictor = self.predictor(self.url, self.url)
        predictor.predict("1,2")
        Stand.cut = True
        with self.assertRaisesRegex(clary.Unready, "may have been worked on"):
            predictor.predict("1,2")
        self.assertEqual(len(Stand.asked), 2)

    def test_a_connection_that_ended_unused_is_made_anew(self) -> None:
        predictor = self.predictor()
        predictor.predict("1,2")
        [connection] = predictor._connections().values()
        connection.sock.shutdown(2)
        predictor.predict("1,2")
        self.assertEqual(len(Stand.asked), 2)

    def test_a_refusal_has_its_kind_and_its_words(self) -> None:
        for status, kind in {429: clary.Exhausted, 503: clary.Unready, 404: clary.NotFound, 401: clary.Denied, 400: clary.Invalid, 500: clary.Internal}.items():
            Stand.status = status
            with self.assertRaisesRegex(kind, f"variant blue: {status} .*: the queue is full .request r1."):
                self.predictor().predict("1,2")

    def test_an_answer_comes_in_pieces_and_a_reward_goes_back(self) -> None:
        self.assertEqual(b"".join(self.predictor().stream("1,2")), b"1,2")
        self.predictor().reward("id-1", 0.5)
        self.assertEqual([path.rsplit("/", 1)[1] for path, _, _ in Stand.asked], ["invocations-response-stream", "rewards"])
        self.assertEqual(json.loads(Stand.asked[1][2]), {"inference_id": "id-1", "reward": 0.5})

    def test_a_token_goes_nowhere_in_the_clear(self) -> None:
        with self.assertRaisesRegex(clary.Invalid, "not encrypted"):
            self.predictor("http://10.0.0.1:80").predict("1,2")


SERVER = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, text):
        self.send_response(200); self.send_header("Content-Type", "text/csv"); self.send_header("Content-Length", str(len(text)))
        self.end_headers(); self.wfile.write(text)
    def do_GET(self): self.answer(b"")
    def do_POST(self): self.answer(os.environ["NAME"].encode() + b"," + self.rfile.read(int(self.headers["Content-Length"])))
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@unittest.skipUnless("CLARY_CONFIG" in os.environ, "there is no cluster: set CLARY_CONFIG")
class Endpoints(unittest.TestCase):
    def setUp(self) -> None:
        self.client = clary.Client()
        self.addCleanup(self.client.close)

    def test_an_endpoint_from_its_making_to_its_end(self) -> None:
        def variant(name: str, weight: int) -> dict[str, Any]:
            program = {"command": ["python3", "-c", SERVER], "env": {"NAME": name}}
            return {"name": name, "weight": weight, "program": program, "resources": {"cores": 0.1, "memory": "96MiB"}}

        variants = [variant("blue", 1), variant("green", 0)]
        predictor = self.client.deploy("py-endpoint", variants=variants, timeout=60, more={"update": {"wait": "0s"}})
        self.addCleanup(predictor.close)
        answer = predictor.predict("1,2")
        self.assertEqual((answer.value, answer.variant), ([["blue", "1", "2"]], "blue"))
        self.assertTrue(answer.inference_id)
        predictor.reward(answer.inference_id, 1.0)
        self.assertEqual(predictor.predict("1,2", variant="green").variant, "green")
        self.client.set_weights("py-endpoint", {"blue": 0, "green": 1})
        until(lambda: predictor.predict("1,2").variant == "green")
        self.client.scale_endpoint("py-endpoint", {"green": 2})
        endpoint = self.client.wait_endpoint("py-endpoint", 60)
        self.assertEqual([(v.name, v.replicas, v.healthy, v.traffic) for v in endpoint.variants], [("blue", 1, 1, 0.0), ("green", 2, 2, 1.0)])
        self.assertIn("py-endpoint", [e.name for e in self.client.endpoints()])
        with self.assertRaisesRegex(clary.Conflict, "already"):
            self.client.deploy("py-endpoint", variants=variants, timeout=None)
        self.client.update_endpoint("py-endpoint", {"variants": [variant("red", 1)], "update": {"wait": "0s"}}, expect=1)
        until(lambda: predictor.predict("1,2").variant == "red")
        self.assertEqual(self.client.wait_endpoint("py-endpoint", 60).generation, 2)
        self.client.rollback_endpoint("py-endpoint", "a test")
        until(lambda: predictor.predict("1,2").variant == "green")
        self.client.cancel("py-endpoint")
        self.client.wait("py-endpoint", 90, check=False)
        with self.assertRaises(clary.NotFound):
            until(lambda: predictor.predict("1,2").variant == "")
        self.client.delete("py-endpoint")


def until(holds: Any) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
