"""A download from a server that misbehaves."""

import hashlib
import http.server
import threading

import pytest

pytestmark = pytest.mark.workflow

RIGHT = b"the right file"
ANSWERS = [(503, b""), (503, b""), (200, b"a corrupted file"), (200, RIGHT)]


@pytest.fixture
def server():
    """Serve two failures, then a corrupted file, then the right one; keep what was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = ANSWERS[min(len(asked), len(ANSWERS) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        serving.asked = asked
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield serving
        serving.shutdown()


@pytest.fixture
def remote(project, server):
    """Return a project whose dataset is one file on that server."""
    url = f"http://127.0.0.1:{server.server_port}/image.tif"
    project.add_dataset(
        "remote",
        {
            "source": {"kind": "download", "registry": "remote.csv"},
            "noisy": "remote/*.tif",
            "axes": "YX",
            "noise_direction": "x",
        },
    )
    registry = f"file,sha256,url\nremote/image.tif,{hashlib.sha256(RIGHT).hexdigest()},{url}\n"
    (project.folder / "config/datasets/remote.csv").write_text(registry)
    project.configure(datasets=["remote"])
    return project


def test_two_failures_and_a_corrupted_file_are_tried_over(remote, server):
    remote.snakemake("download_all", DVLAE_DATA_MIRROR="")
    assert (remote.folder / "data/remote/image.tif").read_bytes() == RIGHT
    assert len(server.asked) == 4


def test_the_mirror_of_the_configuration_is_looked_in_first(remote, server):
    mirror = remote.folder / "mirror/remote"
    mirror.mkdir(parents=True)
    (mirror / "image.tif").write_bytes(RIGHT)
    remote.configure(datasets=["remote"], data_mirror="mirror")
    remote.snakemake("download_all", DVLAE_DATA_MIRROR="")
    assert (remote.folder / "data/remote/image.tif").read_bytes() == RIGHT
    assert server.asked == []
