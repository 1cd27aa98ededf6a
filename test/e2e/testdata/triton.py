"""Asks a model server as Triton's own clients do, over REST and gRPC: triton.py HOST:PORT MODEL."""

import sys

import numpy as np
import tritonclient.grpc
import tritonclient.http

at, model = sys.argv[1:]
rows = np.array([[4, 2], [2, 4], [4, 2]], dtype=np.float32)
seen = []


def ask(library, client, name, binary=None):
    tensor = library.InferInput("input", list(rows.shape), "FP32")
    outputs = None
    if binary is None:
        tensor.set_data_from_numpy(rows)
    else:
        tensor.set_data_from_numpy(rows, binary_data=binary)
        outputs = [library.InferRequestedOutput(o, binary_data=binary) for o in ("probabilities", "label")]
    answer = client.infer(model, [tensor], outputs=outputs, request_id="7")
    labels = [l.decode() if isinstance(l, bytes) else l for l in answer.as_numpy("label").tolist()]
    assert labels == ["left", "right", "left"], labels
    seen.append(answer.as_numpy("probabilities"))
    print(name, "answers", labels)


for library, name in ((tritonclient.http, "rest"), (tritonclient.grpc, "grpc")):
    client = library.InferenceServerClient(at)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(model)
    about = client.get_model_metadata(model)
    assert "probabilities" in str(about), about
    assert "clary" in str(client.get_server_metadata())
    ask(library, client, name)
    if name == "rest":
        ask(library, client, name + " with bytes", True)
        ask(library, client, name + " with JSON", False)
    try:
        client.infer("nosuch", [])
    except Exception as error:
        assert "ask for" in str(error), error
        print(name, "refuses another model")
    client.close()

assert all((one == seen[0]).all() for one in seen), seen
print("all alike")
