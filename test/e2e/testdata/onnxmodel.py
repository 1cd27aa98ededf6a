"""Makes ONNX models: onnxmodel.py FOLDER. Prints the place of onnxruntime's library, rows and what
onnxruntime itself makes of them."""

import glob
import json
import os
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

folder = sys.argv[1]
rng = np.random.default_rng(1)
w1, w2 = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=(8, 3)).astype(np.float32)
graph = helper.make_graph(
    [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["z"]),
        helper.make_node("Softmax", ["z"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["z"], ["class"], axis=1, keepdims=0),
        helper.make_node("LabelEncoder", ["class"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1, 2], values_strings=["a", "b", ""]),
    ],
    "classifier",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 4])],
    [
        helper.make_tensor_value_info("label", TensorProto.STRING, ["rows"]),
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3]),
    ],
    [helper.make_tensor("w1", TensorProto.FLOAT, w1.shape, w1.flatten()), helper.make_tensor("w2", TensorProto.FLOAT, w2.shape, w2.flatten())],
)
opsets = [helper.make_opsetid("", 13), helper.make_opsetid("ai.onnx.ml", 2)]
model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
onnx.checker.check_model(model)
os.makedirs(folder, exist_ok=True)
onnx.save(model, folder + "/model.onnx")
rows = rng.normal(size=(50, 4)).astype(np.float32)
labels, probabilities = onnxruntime.InferenceSession(folder + "/model.onnx").run(None, {"x": rows})
print(json.dumps({
    "library": glob.glob(os.path.dirname(onnxruntime.__file__) + "/capi/libonnxruntime.so.*")[0],
    "rows": rows.tolist(), "labels": labels.tolist(), "probabilities": probabilities.tolist(),
}))
