"""A stand-in, on 127.0.0.1, for what the plugins talk to: S3, Google's storage, Kubernetes and AWS Batch.

A job that is sent runs at once, in an empty folder and with no more of the environment than was sent with it. Objects
are kept in memory. Google Batch speaks gRPC, which nothing here does.
"""

import base64
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: test
clusters: [{{name: test, cluster: {{server: "{address}"}}}}]
users: [{{name: test, user: {{}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
"""


class Cloud:
    """What was sent, and what is stored."""

    def __init__(self, folder: Path, path: str):
        self.folder, self.path = folder, path
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.sent: list[dict] = []
        self.status: dict[str, int] = {}
        self.printed: list[str] = []

    def environment(self, address: str) -> dict[str, str]:
        """Return what a user has in the environment: addresses and credentials."""
        (self.folder / "kubeconfig").write_text(KUBECONFIG.format(address=address))
        keys = {"ACCESS_KEY": "someone", "SECRET_KEY": "secret"}
        return {
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "STORAGE_EMULATOR_HOST": address,
            "AWS_ENDPOINT_URL_BATCH": address,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
        } | {f"SNAKEMAKE_STORAGE_S3_{name}": value for name, value in keys.items()}

    def run(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        """Run a job's command as its container would."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment | {"PATH": self.path, "HOME": folder},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.printed.append(done.stdout)
        self.status[name] = done.returncode


class Handler(BaseHTTPRequestHandler):
    """Answers; each method is named after what it answers to."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one packet for headers and body, or each answer waits for an acknowledgement
    cloud: Cloud

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.startswith(("/api/", "/apis/")):
            self.kubernetes(url.path, json.loads(body or "{}"))
        elif url.path.startswith("/v1/"):
            self.batch(url.path, json.loads(body or "{}"))
        elif "/storage/v1/" in url.path:
            self.google(url.path.partition("/storage/v1/b/")[2], parse_qs(url.query), body)
        else:
            self.s3(unquote(url.path).lstrip("/"), parse_qs(url.query), body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

    def kubernetes(self, path: str, body: dict) -> None:
        if self.command == "POST" and path.endswith("/secrets"):
            values = {key: base64.b64decode(value).decode() for key, value in body["data"].items()}
            self.cloud.secrets[body["metadata"]["name"]] = values
        elif self.command == "POST" and path.endswith("/jobs"):
            self.cloud.sent.append(body)
            container = body["spec"]["template"]["spec"]["containers"][0]
            references = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container.get("env", [])}
            environment = {name: self.cloud.secrets[at["name"]][at["key"]] for name, at in references.items()}
            self.cloud.run(body["metadata"]["name"], [*container["command"], *container["args"]], environment)
        elif path.endswith("/status"):
            failed = self.cloud.status[path.split("/")[-2]] != 0
            return self.send_json({"status": {"failed": 1} if failed else {"succeeded": 1}})
        elif path.endswith("/pods"):
            return self.send_json({"items": []})
        self.send_json({})

    def batch(self, path: str, body: dict) -> None:
        number = len(self.cloud.sent)
        if path == "/v1/registerjobdefinition":
            self.cloud.sent.append(body)
            self.send_json({"jobDefinitionName": str(number), "jobDefinitionArn": "arn", "revision": 1})
        elif path == "/v1/submitjob":
            name = body["jobDefinition"].partition(":")[0]
            container = self.cloud.sent[int(name)]["containerProperties"]
            environment = {each["name"]: each["value"] for each in container["environment"]}
            self.cloud.run(name, container["command"], environment)
            self.send_json({"jobName": body["jobName"], "jobId": name})
        elif path == "/v1/describejobs":
            status = {name: "FAILED" if self.cloud.status[name] else "SUCCEEDED" for name in body["jobs"]}
            self.send_json({"jobs": [{"jobId": name, "status": found} for name, found in status.items()]})
        else:
            self.send_json({})

    def google(self, path: str, query: dict, body: bytes) -> None:
        objects = self.cloud.objects
        bucket, _, rest = path.partition("/")
        name = f"{bucket}/{unquote(rest.partition('/')[2])}"
        if self.command == "POST":
            boundary = re.search('boundary="?([^";]+)', self.headers["Content-Type"] + ";")[1].strip()
            about, content = (part.partition(b"\r\n\r\n")[2][:-2] for part in body.split(f"--{boundary}".encode())[1:3])
            name = f"{bucket}/{json.loads(about)['name']}"
            objects[name] = content, int(time.time())
            self.send_json(self.described(name))
        elif self.command == "DELETE":
            objects.pop(name, None)
            self.send(204)
        elif not rest:
            self.send_json({"name": bucket})
        elif rest == "o":
            found = sorted(each for each in objects if each.startswith(f"{bucket}/{query.get('prefix', [''])[0]}"))
            self.send_json({"items": [self.described(each) for each in found]})
        elif name not in objects:
            self.send(404)
        elif query.get("alt") == ["media"]:
            self.send(200, objects[name][0])
        else:
            self.send_json(self.described(name))

    def described(self, path: str) -> dict:
        # It comes with the extra clouds, and the tests that need it are collected without.
        import google_crc32c

        content, seconds = self.cloud.objects[path]
        bucket, _, name = path.partition("/")
        checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
        return {"bucket": bucket, "name": name, "updated": date, "size": str(len(content)), "crc32c": checksum}

    def s3(self, path: str, query: dict, body: bytes) -> None:
        objects = self.cloud.objects
        bucket, _, key = path.partition("/")
        if self.command == "PUT" and key:
            objects[path] = body, int(time.time())
            self.send(200)
        elif self.command == "DELETE":
            objects.pop(path, None)
            self.send(204)
        elif not key and self.command == "GET":
            found = sorted(name for name in objects if name.startswith(f"{bucket}/{query.get('prefix', [''])[0]}"))
            self.send(200, f"<ListBucketResult>{''.join(map(self.listed, found))}</ListBucketResult>".encode())
        elif not key:
            self.send(200)
        elif path in objects:
            content, seconds = objects[path]
            self.send(200, content, {"Last-Modified": formatdate(seconds, usegmt=True), "ETag": '"0"'})
        else:
            self.send(404)

    def listed(self, path: str) -> str:
        content, seconds = self.cloud.objects[path]
        date = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
        key = escape(path.partition("/")[2])
        return f"<Contents><Key>{key}</Key><LastModified>{date}</LastModified><Size>{len(content)}</Size></Contents>"

    def send_json(self, body: dict) -> None:
        self.send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def send(self, status: int, body: bytes = b"", headers: dict | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def stand_in(folder: Path, path: str) -> Iterator[tuple[Cloud, dict[str, str]]]:
    """Serve while the block runs; give what was sent and the environment in which the plugins find it."""
    cloud = Cloud(folder, path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"cloud": cloud}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cloud, cloud.environment(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
