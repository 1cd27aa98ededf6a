"""Area under the ROC curve of scikit-learn's classifiers on a folder that `clary prepare` made: table.py FOLDER LABEL."""

import csv
import sys

from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score


def read(part, label):
    with open(f"{sys.argv[1]}/{part}/{part}.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    columns = [name for name in rows[0] if name != label]
    return [[float(row[name]) for name in columns] for row in rows], [row[label] for row in rows]


label = sys.argv[2]
x, y = read("train", label)
test_x, test_y = read("test", label)
for model in (
    LogisticRegression(max_iter=5000),
    GradientBoostingClassifier(random_state=0),
    HistGradientBoostingClassifier(random_state=0),
):
    model.fit(x, y)
    print(type(model).__name__, "%.4f" % roc_auc_score(test_y, model.predict_proba(test_x)[:, 1]))
