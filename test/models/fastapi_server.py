"""The digits network behind FastAPI and uvicorn, as one would write it: fastapi_server.py MODEL_DIR PORT."""

import json
import os
import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

folder, port = sys.argv[1], int(sys.argv[2])
manifest = json.load(open(folder + "/manifest.json"))
weights = torch.frombuffer(bytearray(open(folder + "/weights.bin", "rb").read()), dtype=torch.float32)
scale = manifest["data"]["scale"]

layers, at, width = [], 0, manifest["network"]["input"][0]
for layer in manifest["network"]["layers"]:
    if "dense" not in layer:
        continue  # dropout does nothing at serving
    units = layer["dense"]["units"]
    linear = torch.nn.Linear(width, units)
    with torch.no_grad():
        linear.weight.copy_(weights[at : at + width * units].reshape(width, units).T)
        linear.bias.copy_(weights[at + width * units : at + width * units + units])
    at, width = at + width * units + units, units
    layers.append(linear)
    if layer["dense"].get("activation") == "relu":
        layers.append(torch.nn.ReLU())
model = torch.nn.Sequential(*layers, torch.nn.Softmax(dim=1)).eval()
torch.set_num_threads(1)  # a row is too small to be divided

app = FastAPI()


class Rows(BaseModel):
    instances: list[list[float]]


@app.get("/ping")
async def ping():
    return {}


@app.post("/invocations")
async def invocations(rows: Rows):
    with torch.inference_mode():
        probabilities = model(torch.tensor(rows.instances) / scale)
    return {"predictions": [{"label": str(p.index(max(p))), "probabilities": p} for p in probabilities.tolist()]}


if __name__ == "__main__":
    # A process for each processor, as uvicorn's documentation advises.
    uvicorn.run("fastapi_server:app", host="127.0.0.1", port=port, workers=os.cpu_count(), log_level="warning", access_log=False)
