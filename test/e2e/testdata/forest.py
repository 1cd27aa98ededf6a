"""Makes a scikit-learn model with its script: forest.py FOLDER. Prints rows and their classes."""

import json
import os
import pickle
import sys

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

folder = sys.argv[1]
rows, classes = load_iris(return_X_y=True)
model = RandomForestClassifier(20, random_state=1).fit(rows, classes)
os.makedirs(folder + "/code")
with open(folder + "/model.pkl", "wb") as file:
    pickle.dump(model, file)
with open(folder + "/code/inference.py", "w") as file:
    file.write('''
import os, pickle
def model_fn(model_dir):
    with open(os.path.join(model_dir, "model.pkl"), "rb") as file:
        return pickle.load(file)
''')
print(json.dumps({"instances": rows[::10].tolist(), "predictions": model.predict(rows[::10]).tolist()}))
