"""The registry of a real cluster: that of CLARY_CONFIG."""

import os
import unittest

import clary


@unittest.skipUnless("CLARY_CONFIG" in os.environ, "there is no cluster: set CLARY_CONFIG")
class Models(unittest.TestCase):
    def setUp(self) -> None:
        self.client = clary.Client()
        self.addCleanup(self.client.close)

    def train(self, weights: str) -> clary.Job:
        script = f"printf %s {weights} > model/weights; echo 'accuracy=0.75;'"
        job = self.client.submit(
            {
                "program": {"command": ["sh", "-c", script]},
                "hyperparameters": {"lr": 0.1},
                "metrics": [{"name": "accuracy", "regex": "accuracy=(.*?);"}],
            },
            register="py",
        )
        return self.client.wait(job.name)

    def test_a_model_from_its_job_to_its_deletion(self) -> None:
        job = self.train("one")
        version = self.client.model_version("py@1")
        self.assertEqual((version.job, version.ref, version.address, version.approval), (job.name, "py@1", "model://py@1", "pending"))
        self.assertEqual((version.metrics, version.parameters["lr"]), ({"accuracy": 0.75}, "0.1"))
        self.assertEqual(version.sha256, job_sha(self.client, job.name))
        self.assertEqual(self.client.register_model("py", job=job.name).ref, "py@1")
        self.assertEqual(self.client.approve_model("py@1", "good").why, "good")
        self.assertEqual(self.client.alias_model("py", "champion", 1).aliases, {"champion": 1})
        self.assertEqual(self.client.model_version("py:champion").aliases, ("champion",))
        judged = self.client.evaluate_model("py:champion", "held-out", {"auc": 0.9}, rows=10, data="test.csv")
        self.assertEqual((judged.evaluations[0].name, judged.evaluations[0].metrics), ("held-out", {"auc": 0.9}))
        with self.assertRaisesRegex(clary.Conflict, "used by alias champion"):
            self.client.delete_model("py@1")
        with self.assertRaisesRegex(clary.Conflict, "rejected"):
            self.client.reject_model("py@1")
        self.client.alias_model("py", "champion", 0)
        self.client.delete_model("py@1")
        with self.assertRaisesRegex(clary.NotFound, "was deleted"):
            self.client.model_version("py@1")
        again = self.client.register_model("py", job=job.name)
        self.assertEqual(again.ref, "py@2")
        self.assertEqual([v.number for v in self.client.model_versions("py")], [2])
        self.assertIn(clary.Model("py", version.owner, 1, {}), list(self.client.models()))
        self.client.delete_model("py@2")
        self.client.delete_model("py")
        with self.assertRaises(clary.NotFound):
            list(self.client.model_versions("py"))


def job_sha(client: clary.Client, name: str) -> str:
    [output] = [o for o in client.job(name).outputs if o.name == "model"]
    return output.sha256


if __name__ == "__main__":
    unittest.main()
