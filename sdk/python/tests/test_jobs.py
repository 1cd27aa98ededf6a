"""Jobs of a real cluster: that of CLARY_CONFIG."""

import os
import unittest

import clary


@unittest.skipUnless("CLARY_CONFIG" in os.environ, "there is no cluster: set CLARY_CONFIG")
class Jobs(unittest.TestCase):
    def setUp(self) -> None:
        self.client = clary.Client()
        self.addCleanup(self.client.close)

    def run_sh(self, script: str, **more: object) -> clary.Job:
        return self.client.submit({"program": {"command": ["sh", "-c", script]}}, **more)  # type: ignore[arg-type]

    def test_a_job_is_submitted_followed_and_waited_for(self) -> None:
        job = self.run_sh("echo out; echo err >&2; sleep 1; echo end", labels={"team": "vision"})
        self.assertFalse(job.done)
        logs = {"stdout": "", "stderr": ""}
        for chunk in self.client.logs(job.name, follow=True):
            if not chunk.note:
                logs[chunk.stream] += chunk.text
        self.assertEqual(logs, {"stdout": "out\nend\n", "stderr": "err\n"})
        ended = self.client.wait(job.name)
        self.assertEqual((ended.state, ended.labels, len(ended.tasks)), ("succeeded", {"team": "vision"}, 1))
        self.assertIsNotNone(ended.started)
        self.assertEqual(ended.spec["program"]["command"][0], "sh")
        self.assertIn(job.name, [j.name for j in self.client.jobs(labels={"team": "vision"})])
        self.client.delete(job.name)
        with self.assertRaises(clary.NotFound):
            self.client.job(job.name)

    def test_a_job_that_failed_is_an_error_with_the_job(self) -> None:
        job = self.run_sh("exit 3")
        with self.assertRaisesRegex(clary.JobFailed, "failed: .*exit code 3") as raised:
            self.client.wait(job.name)
        ended = raised.exception.job
        assert isinstance(ended, clary.Job)
        self.assertEqual(ended.tasks[0].exit_code, 3)
        self.assertEqual(self.client.wait(job.name, check=False).state, "failed")

    def test_waiting_ends_in_time_and_the_job_goes_on(self) -> None:
        job = self.run_sh("sleep 60")
        with self.assertRaises(clary.TimedOut):
            self.client.wait(job.name, timeout=0.5)
        self.assertFalse(self.client.job(job.name).done)
        self.client.cancel(job.name, "enough")
        self.assertEqual(self.client.wait(job.name, timeout=60, check=False).state, "cancelled")

    def test_what_is_wrong_with_a_spec_is_said(self) -> None:
        with self.assertRaisesRegex(clary.Invalid, "comand.*unknown field"):
            self.client.submit({"program": {"comand": ["ls"]}})
        with self.assertRaises(clary.Denied):
            clary.Client(token="clary_u_" + "0" * 16 + "_" + "0" * 64).job("x")


if __name__ == "__main__":
    unittest.main()
