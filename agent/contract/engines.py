"""Starts an engine's own cluster over the instances of a Clary job and runs a driver against it.

Every instance runs: python3 engines.py ENGINE DRIVER [ARGUMENT...]. The first one is the head: it starts the
engine's scheduler and a worker of its own, waits until all instances' workers are there, runs the driver, and
ends the rest. The others start a worker and stay until the head says how it ended, or is gone.

The instances speak over a connection of their own, on the first port of the first instance, with the
certificates that Clary gave them. It carries where the scheduler is, a secret by which the engine's parts know one
another, and in the end that it is over.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

PATIENCE = float(os.environ.get("CLARY_CLUSTER_PATIENCE", "300"))  # seconds for everybody to be there
ENDING = 10.0  # seconds between SIGTERM and SIGKILL for an engine's part


def say(text):
    print("cluster: " + text, file=sys.stderr, flush=True)


class Failed(Exception):
    """Why this instance cannot go on."""


class Place:
    """Where this instance is, and what it has."""

    def __init__(self, env):
        self.rank, self.size = int(env["CLARY_RANK"]), int(env["CLARY_WORLD_SIZE"])
        self.hosts = [host.rsplit(":", 1)[0] for host in env["CLARY_HOSTS"].split(",")]
        self.host, self.head = self.hosts[self.rank], self.hosts[0]
        self.meeting = int(env["CLARY_HOSTS"].split(",")[0].rsplit(":", 1)[1])
        ports = env["CLARY_PORTS"].split(",")
        self.port, self.page = int(ports[1]), int(ports[2])  # the scheduler's, on the head; others are told
        self.cores = max(1, int(float(env.get("CLARY_CORES", "1"))))
        self.memory = int(env.get("CLARY_MEMORY", str(1 << 30)))
        self.gpus = len([d for d in env.get("CUDA_VISIBLE_DEVICES", "").split(",") if d])
        self.tls = env["CLARY_TLS_DIR"]
        job, gang, task = env["CLARY_TASK"].split("/")
        self.peers = "clary://task/%s/%s/%s/%s/" % (job, gang, task.rsplit(".", 1)[1], task.rsplit("-", 1)[0])


def context(place, server):
    """A TLS context in which both sides prove which task of the attempt they are."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_REQUIRED
    made.load_cert_chain(os.path.join(place.tls, "cert.pem"), os.path.join(place.tls, "key.pem"))
    made.load_verify_locations(os.path.join(place.tls, "ca.pem"))
    return made


def peer_is_ours(place, connection):
    names = [value for kind, value in connection.getpeercert().get("subjectAltName", ()) if kind == "URI"]
    return len(names) == 1 and names[0].startswith(place.peers)


def receive(stream):
    line = stream.readline(1 << 16)
    return json.loads(line) if line.endswith(b"\n") else None


def send(connection, **message):
    connection.sendall(json.dumps(message).encode() + b"\n")


def number(code, env):
    """The number that a program in Python prints last, 0 if it fails."""
    asked = subprocess.run([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=PATIENCE)
    words = asked.stdout.split()
    return int(words[-1]) if asked.returncode == 0 and words and words[-1].isdigit() else 0


# The engines. Each says how its parts are started, how many workers are there, and what a driver is told.


class Dask:
    def __init__(self, place, token):
        self.place = place
        self.address = "tls://%s:%d" % (place.head, place.port)
        files = {"ca-file": "ca.pem"}
        for role in ("scheduler", "worker", "client"):
            files[role + "__cert"], files[role + "__key"] = "cert.pem", "key.pem"
        self.env = {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true", "DASK_SCHEDULER_ADDRESS": self.address}
        for name, file in files.items():
            self.env["DASK_DISTRIBUTED__COMM__TLS__" + name.upper().replace("-", "_")] = os.path.join(place.tls, file)

    def head(self):
        return [sys.executable, "-m", "dask", "scheduler", "--protocol", "tls", "--host", self.place.host, "--port", str(self.place.port), "--no-dashboard"]

    def worker(self):
        return [
            sys.executable, "-m", "dask", "worker", self.address, "--protocol", "tls", "--host", self.place.host, "--nworkers", "1",
            "--nthreads", str(self.place.cores), "--memory-limit", str(self.place.memory * 8 // 10), "--no-dashboard",
            "--local-directory", tempfile.gettempdir(), "--death-timeout", str(int(PATIENCE)),
        ]

    def workers(self, env):
        return number("import distributed; c = distributed.Client(timeout=20); print(len(c.scheduler_info(n_workers=-1)['workers']))", env)


class Ray:
    def __init__(self, place, token):
        self.place = place
        self.address = "%s:%d" % (place.head, place.port)
        self.env = {
            "RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token, "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_raylet_start_wait_time_s": str(int(PATIENCE)),
        }

    def part(self):
        store = max(80 << 20, self.place.memory * 3 // 10)
        return [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address", self.place.host, "--num-cpus", str(self.place.cores),
            "--num-gpus", str(self.place.gpus), "--memory", str(self.place.memory - store), "--object-store-memory", str(store),
            "--min-worker-port", "0", "--max-worker-port", "0", "--disable-usage-stats",
        ]

    def head(self):
        return self.part() + ["--head", "--port", str(self.place.port), "--include-dashboard", "false"]

    def worker(self):
        return None if self.place.rank == 0 else self.part() + ["--address", self.address]

    def workers(self, env):
        return number("import ray; ray.init(logging_level='ERROR', log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))", env)


class Spark:
    def __init__(self, place, token):
        self.place = place
        self.address = "spark://%s:%d" % (place.head, place.port)
        try:
            import pyspark
        except ImportError as error:
            raise Failed("pyspark is not installed: add it to the requirements, or to the image") from error
        home = os.environ.get("SPARK_HOME") or os.path.dirname(pyspark.__file__)
        if not (os.environ.get("JAVA_HOME") or shutil.which("java")):
            raise Failed("Spark needs Java, and there is none: install it on the nodes, or name an image that has it")
        self.launch = os.path.join(home, "bin", "spark-class")
        folder = tempfile.mkdtemp(prefix="spark-")
        self.conf = os.path.join(folder, "spark.conf")
        with open(os.open(self.conf, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            file.write("spark.authenticate true\nspark.authenticate.secret %s\nspark.network.crypto.enabled true\n" % token)
            file.write("spark.master %s\nspark.driver.host %s\nspark.ui.enabled false\nspark.ui.killEnabled false\nspark.master.rest.enabled false\n" % (self.address, place.host))
        os.symlink(self.conf, os.path.join(folder, "spark-defaults.conf"))
        # The driver names the interpreter of all executors: by a name that each instance has in its own PATH.
        with open(os.open(os.path.join(folder, "clary-python"), os.O_CREAT | os.O_WRONLY, 0o700), "w") as file:
            file.write("#!/bin/sh\nexec '%s' \"$@\"\n" % sys.executable.replace("'", "'\\''"))
        self.env = {
            "SPARK_HOME": home, "SPARK_CONF_DIR": folder, "MASTER": self.address, "SPARK_LOCAL_IP": place.host, "PYSPARK_PYTHON": "clary-python",
            "PYSPARK_DRIVER_PYTHON": sys.executable, "PATH": folder + os.pathsep + os.environ.get("PATH", ""),
            "SPARK_NO_DAEMONIZE": "1", "SPARK_DAEMON_MEMORY": "512m",
        }

    def head(self):
        return [
            self.launch, "org.apache.spark.deploy.master.Master", "--host", self.place.host, "--port", str(self.place.port),
            "--webui-port", str(self.place.page), "--properties-file", self.conf,
        ]

    def worker(self):
        memory = max(512, self.place.memory * 6 // 10 >> 20)
        return [
            self.launch, "org.apache.spark.deploy.worker.Worker", self.address, "--host", self.place.host, "--cores", str(self.place.cores),
            "--memory", "%dm" % memory, "--webui-port", "0", "--work-dir", tempfile.gettempdir(), "--properties-file", self.conf,
        ]

    def workers(self, env):
        with urllib.request.urlopen("http://%s:%d/json/" % (self.place.host, self.place.page), timeout=10) as page:
            return json.load(page)["aliveworkers"]


ENGINES = {"dask": Dask, "ray": Ray, "spark": Spark}


class Parts:
    """The engine's processes on this instance."""

    def __init__(self, env):
        self.env, self.running = dict(os.environ, **env), []

    def start(self, name, argv):
        if argv:
            self.running.append((name, subprocess.Popen(argv, env=self.env, stdin=subprocess.DEVNULL, start_new_session=True)))

    def check(self):
        for name, process in self.running:
            if process.poll() is not None:
                raise Failed("the %s ended by itself, with exit code %d" % (name, process.returncode))

    def end(self):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + ENDING
            for _, process in reversed(self.running):
                if process.poll() is None:
                    try:
                        os.killpg(process.pid, sent)
                    except ProcessLookupError:
                        pass
            while time.monotonic() < deadline and any(p.poll() is None for _, p in self.running):
                time.sleep(0.05)


def until(what, holds, check):
    deadline = time.monotonic() + PATIENCE
    while not holds():
        check()
        if time.monotonic() > deadline:
            raise Failed("waited %d s for %s" % (PATIENCE, what))
        time.sleep(0.2)


def listens(host, port):
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex((host, port)) == 0


def meet(place):
    """The connections of all others, once they are there."""
    door = socket.create_server((place.host, place.meeting))
    door.settimeout(PATIENCE)
    found, secure = {}, context(place, server=True)
    while len(found) < place.size - 1:
        try:
            raw, _ = door.accept()
            raw.settimeout(PATIENCE)
            connection = secure.wrap_socket(raw, server_side=True)
        except socket.timeout as error:
            raise Failed("waited %d s for the other instances: %d of %d came" % (PATIENCE, len(found), place.size - 1)) from error
        except OSError as error:
            say("somebody is turned away: %s" % error)
            continue
        stream = connection.makefile("rb")
        hello = receive(stream) if peer_is_ours(place, connection) else None
        if not hello:
            say("somebody who is not of this job is turned away")
            connection.close()
            continue
        found[hello["rank"]] = (connection, stream)
    door.close()
    return found


def head(place, engine, driver):
    token = secrets.token_hex(32)
    made = ENGINES[engine](place, token)
    parts, others, code = Parts(made.env), {}, 1
    try:
        parts.start("scheduler", made.head())
        until("the engine's head", lambda: listens(place.host, place.port), parts.check)
        parts.start("worker", made.worker())
        if place.size > 1:
            others = meet(place)
        for connection, _ in others.values():
            send(connection, token=token, port=place.port)
        gone = []
        for rank, (_, stream) in others.items():  # they say nothing until they end
            threading.Thread(target=lambda r=rank, s=stream: (s.read(1), gone.append(r)), daemon=True).start()

        def check():
            parts.check()
            if gone:
                raise Failed("instance algo-%d is gone" % (gone[0] + 1))

        def all_there():
            try:
                return made.workers(parts.env) >= place.size
            except (OSError, ValueError, subprocess.TimeoutExpired):
                return False

        until("the workers of all %d instances" % place.size, all_there, check)
        say("%s of %d instances at %s" % (engine, place.size, made.address))
        code = drive(driver, parts.env, check)
    finally:
        for connection, _ in others.values():
            try:
                send(connection, over=True)
            except OSError:
                pass
        parts.end()
    return code


def drive(argv, env, check):
    process = subprocess.Popen(argv, env=env)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while process.poll() is None:
            check()
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                pass
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def follow(place, engine):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            raw = socket.create_connection((place.head, place.meeting), 10)
            connection = context(place, server=False).wrap_socket(raw)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise Failed("the head cannot be reached: %s" % error) from error
            time.sleep(0.3)
    if not peer_is_ours(place, connection):
        raise Failed("who answers for the head is not of this job")
    connection.settimeout(PATIENCE)
    stream = connection.makefile("rb")
    send(connection, rank=place.rank)
    told = receive(stream)
    if not told or "token" not in told:
        raise Failed("the head ended before it began")
    connection.settimeout(None)
    place.port = told["port"]
    made = ENGINES[engine](place, told["token"])
    parts, ended = Parts(made.env), []
    threading.Thread(target=lambda: ended.append(receive_or_none(stream)), daemon=True).start()
    try:
        parts.start("worker", made.worker())
        while not ended:
            parts.check()
            time.sleep(0.2)
    except Failed:
        time.sleep(1)  # the head may just have ended all, and its word be on its way
        if not ended or ended[0] is None:
            raise
    finally:
        parts.end()
    if ended[0] is None:
        raise Failed("the head is gone")
    return 0  # how it ended is the head's to say


def receive_or_none(stream):
    try:
        return receive(stream)
    except OSError:
        return None


def main():
    engine, driver = sys.argv[1], sys.argv[2:]
    place = Place(os.environ)
    try:
        if place.rank == 0:
            return head(place, engine, driver)
        return follow(place, engine)
    except Failed as error:
        say(str(error))
        folder = os.path.join(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"), "output")
        with open(os.path.join(folder, "failure"), "w") as file:
            file.write(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
