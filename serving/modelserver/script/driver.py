"""Runs a script's model_fn, input_fn, predict_fn and output_fn for the model server.

driver.py SCRIPT MODEL_DIR. Requests come on descriptor 3 and answers go to descriptor 4, as frames: the
length of a JSON header and of a body, four bytes each, little-endian, then both. An answer that comes in
parts is a frame for each, with "more" in its header, and one without. Standard output and error are the
script's own.
"""

import csv
import importlib.util
import inspect
import io
import json
import os
import signal
import struct
import sys
import traceback
import types


class Unsupported(Exception):
    """A content type that nobody here can read or write."""


def main():
    script, model_dir = sys.argv[1:3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server says when it is over
    requests, answers = os.fdopen(3, "rb"), os.fdopen(4, "wb")
    os.set_inheritable(3, False)
    os.set_inheritable(4, False)
    handler = Handler(load(script), model_dir)
    send(answers, {"ready": True}, b"")
    while True:
        lengths = requests.read(8)
        if len(lengths) < 8:
            return
        head, size = struct.unpack("<II", lengths)
        header, body = json.loads(requests.read(head)), requests.read(size)
        try:
            answer, content_type = handler.answer(body, header["content_type"], header["accept"])
            if not isinstance(answer, bytes):
                for part in answer:
                    send(answers, {"content_type": content_type, "more": True}, part)
                answer = b""
            send(answers, {"content_type": content_type}, answer)
        except Exception as error:  # the script's own: it is told, and the next request may fare better
            traceback.print_exc()
            send(answers, {"error": "%s: %s" % (type(error).__name__, error), "kind": kind(error), "step": handler.step}, b"")


def kind(error):
    if isinstance(error, Unsupported):
        return "unsupported"
    return "invalid" if isinstance(error, ValueError) else "failed"


def send(answers, header, body):
    head = json.dumps(header).encode()
    answers.write(struct.pack("<II", len(head), len(body)) + head)
    answers.write(body)
    answers.flush()


def load(path):
    folder = os.path.dirname(os.path.abspath(path))
    sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(os.path.splitext(os.path.basename(path))[0], path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Handler:
    def __init__(self, module, model_dir):
        self.module = module
        self.context = types.SimpleNamespace(system_properties={"model_dir": model_dir}, model_name="model")
        self.step = "model_fn"
        if not hasattr(module, "model_fn"):
            raise SystemExit("the script has no model_fn(model_dir): it is what loads the model")
        self.model = self.call("model_fn", None, model_dir)

    def call(self, name, usual, *args):
        """Calls the script's function, or the usual one, with a context if it asks for one more."""
        self.step = name
        function = getattr(self.module, name, usual)
        try:
            needed = [p for p in inspect.signature(function).parameters.values()
                      if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        except (TypeError, ValueError):  # it does not tell
            needed = args
        return function(*args, self.context) if len(needed) > len(args) else function(*args)

    def answer(self, body, content_type, accept):
        name = content_type.split(";")[0].strip().lower()
        if name.startswith("text/") or "json" in name or name == "":
            body = body.decode("utf-8")
        if hasattr(self.module, "transform_fn"):
            result = self.call("transform_fn", None, self.model, body, content_type, accept)
        else:
            data = self.call("input_fn", input_fn, body, content_type)
            prediction = self.call("predict_fn", predict_fn, data, self.model)
            result = self.call("output_fn", output_fn, prediction, accept)
        if isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], str):
            result, accept = result
        if streams(result):
            return (self.encoded(part) for part in result), accept
        return self.encoded(result), accept

    def encoded(self, result):
        if isinstance(result, str):
            return result.encode("utf-8")
        if not isinstance(result, (bytes, bytearray, memoryview)):
            raise TypeError("%s gave a %s: it must give str or bytes, an iterator of them, or a pair of such and a content type" % (self.step, type(result).__name__))
        return bytes(result)


def streams(value):
    """Whether a value comes in parts: a generator or another iterator, not what holds all at once."""
    return hasattr(value, "__next__")


def array(rows):
    try:
        import numpy
    except ImportError:
        return rows
    return numpy.array(rows)


def cell(text):
    try:
        return float(text)
    except ValueError:
        return text


def input_fn(body, content_type):
    name = content_type.split(";")[0].strip().lower()
    if name == "text/csv":
        return array([[cell(c) for c in row] for row in csv.reader(io.StringIO(body)) if row])
    if name == "application/json":
        data = json.loads(body)
        if isinstance(data, dict) and isinstance(data.get("instances"), list):
            data = data["instances"]
        return array(data)
    if "jsonl" in name or "ndjson" in name:
        rows = [json.loads(line) for line in body.splitlines() if line.strip()]
        return array([row["features"] if isinstance(row, dict) and "features" in row else row for row in rows])
    if name == "application/x-npy":
        import numpy
        return numpy.load(io.BytesIO(body), allow_pickle=False)
    raise Unsupported("content type %r: the usual input_fn reads CSV, JSON, JSON lines and npy; write one that reads it" % content_type)


def predict_fn(data, model):
    return model.predict(data) if hasattr(model, "predict") else model(data)


def plain(value):
    for name in ("detach", "tolist"):
        if hasattr(value, name):
            value = getattr(value, name)()
    return value


def parts(values, name):
    """Writes values as they come: as events, as lines of JSON, or texts and bytes as they are."""
    for value in values:
        if name == "text/event-stream":
            text = value if isinstance(value, str) else json.dumps(plain(value))
            yield "".join("data: %s\n" % line for line in text.split("\n")) + "\n"
        elif "jsonl" in name or "ndjson" in name:
            yield json.dumps(plain(value)) + "\n"
        else:
            yield value


def output_fn(prediction, accept):
    name = accept.split(";")[0].strip().lower()
    if streams(prediction):
        return parts(prediction, name), accept
    if name == "application/x-npy":
        import numpy
        out = io.BytesIO()
        numpy.save(out, prediction, allow_pickle=False)
        return out.getvalue(), name
    value = plain(prediction)
    rows = value if isinstance(value, list) else [value]
    if name == "text/csv":
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(r if isinstance(r, (list, tuple)) else [r] for r in rows)
        return out.getvalue(), name
    if "jsonl" in name or "ndjson" in name:
        return "".join(json.dumps(r) + "\n" for r in rows), name
    if name in ("application/json", "*/*", ""):
        return json.dumps(value), "application/json"
    raise Unsupported("accept %r: the usual output_fn writes CSV, JSON, JSON lines and npy; write one that writes it" % accept)


if __name__ == "__main__":
    main()
