package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/clary-ml/clary/test/testbed"
)

// The drivers ask where their tasks ran, and compute something that all must have a part in.
const daskDriver = `
import socket
from distributed import Client
client = Client()
hosts = client.run(socket.gethostname)
print("hosts", sorted(hosts.values()), client.scheduler.address.split(":")[0])
print("sum", sum(client.gather(client.map(lambda n: n * n, range(1000)))))
open("/opt/ml/processing/output/sum", "w").write("done\n")
`

const rayDriver = `
import ray, socket
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
ray.init()
@ray.remote
def square(n):
    return socket.gethostname(), sum(i * i for i in n)
nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"]]
parts = ray.get([square.options(scheduling_strategy=On(nodes[i % len(nodes)], soft=False)).remote(range(i * 100, i * 100 + 100)) for i in range(10)])
print("nodes", len(nodes), "sum", sum(p[1] for p in parts))
print("hosts", sorted({p[0] for p in parts}))
open("/opt/ml/processing/output/sum", "w").write("done\n")
`

// sparkDriver needs no option: SPARK_CONF_DIR says where the master is.
const sparkDriver = `
import socket
from pyspark.sql import SparkSession
spark = SparkSession.builder.config("spark.executor.memory", "450m").getOrCreate()
context = spark.sparkContext
print("master", context.master.split(":")[0], "authenticates", context.getConf().get("spark.authenticate"))
parts = context.parallelize(range(1000), 8).map(lambda n: (socket.gethostname(), n * n)).collect()
print("hosts", sorted({p[0] for p in parts}), "sum", sum(p[1] for p in parts))
open("/opt/ml/processing/output/sum", "w").write("done\n")
spark.stop()
`

func TestAnEnginesClusterRunsOverTheInstancesOfAJob(t *testing.T) {
	beside(t)
	for _, test := range []struct {
		engine, requirements, driver, memory string
		want                                 []string
	}{
		{"dask", "dask[distributed]\n", daskDriver, "1GiB", []string{"hosts ['algo-1', 'algo-2'] tls", "sum 332833500"}},
		{"ray", "ray\n", rayDriver, "3GiB", []string{"nodes 2 sum 332833500", "hosts ['algo-1', 'algo-2']"}},
		{"spark", "pyspark\n", sparkDriver, "2GiB", []string{"master spark authenticates true", "hosts ['algo-1', 'algo-2'] sum 332833500"}},
	} {
		t.Run(test.engine, func(t *testing.T) {
			if test.engine != "dask" && os.Getenv("CLARY_TEST_CLUSTERS") == "" {
				t.Skip("skipped: hundreds of megabytes and minutes; CLARY_TEST_CLUSTERS=1 runs it")
			}
			if _, err := exec.LookPath("java"); err != nil && test.engine == "spark" {
				t.Skip("skipped: Spark needs Java, which is not installed")
			}
			m := start(t, 1, 2)
			run := func(name, driver string) []string {
				return []string{
					"process", "--cluster", test.engine, "--instances", "2", "--cores", "3", "--memory", test.memory, "--script", m.File(name+".py", driver),
					"--python", "/usr/bin/python3", "--requirements", m.File("requirements.txt", test.requirements), "--output", "s3://made/" + name + "/", "--name", name, "--detach",
				}
			}
			ends := func(name, driver string) testbed.Job {
				m.Clary(run(name, driver)...)
				m.WaitFor("the end of "+name, 6*time.Minute, func() bool { state := m.Job(name).State; return state == "succeeded" || state == "failed" })
				return m.Job(name)
			}
			first := ends("sums", test.driver)
			if strings.Contains(first.Reason, "requirements cannot be installed") {
				t.Skipf("skipped: %s cannot be had here: %s", test.engine, first.Reason)
			}
			said := m.Clary("logs", "sums")
			if first.State != "succeeded" {
				all, _ := m.Try("logs", "sums", "--tail", "60", "-o", "json") // standard error too
				t.Fatalf("it %s: %s\n%s", first.State, first.Reason, all)
			}
			for _, want := range test.want {
				if !strings.Contains(said, want) {
					t.Errorf("%q is not in %s", want, said)
				}
			}
			if got := m.fetched("s3://made/sums/"); got["sum"] != "done\n" {
				t.Errorf("it left %q", got)
			}
			if last := ends("fails", "import sys\nsys.exit(7)\n"); last.State != "failed" || !strings.Contains(last.Reason, "worker-0 failed") || !strings.Contains(last.Reason, "exit code 7") {
				t.Errorf("a driver that fails: %s, %s", last.State, last.Reason)
			}
		})
	}
}
