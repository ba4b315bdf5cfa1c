"""A login node downloads; what computes has no network at all."""

import csv
import hashlib
import http.server
import subprocess
import threading

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.workflow

# A network namespace of its own has no interface that is up, not even the loopback.
WITHOUT_NETWORK = ["unshare", "--net", "--map-root-user"]


@pytest.fixture
def without_network():
    try:
        tried = subprocess.run([*WITHOUT_NETWORK, "true"], capture_output=True, text=True, timeout=30)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if tried.returncode != 0:
        pytest.skip(f"unavailable: a network namespace: {tried.stderr.strip()}")
    return WITHOUT_NETWORK


@pytest.fixture
def server(tmp_path):
    """Serve a folder on this machine; return the folder and its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **keys):
            super().__init__(*arguments, directory=folder, **keys)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_after_download_all_the_rest_needs_no_network(project, server, without_network):
    folder, address = server
    with (project.folder / "config/datasets/served.csv").open("w", newline="") as registry:
        rows = csv.writer(registry)
        rows.writerow(["file", "sha256", "url", "member", "archive_sha256"])
        for index in range(2):
            image = np.random.default_rng(index).poisson(80, (64, 64)).astype("uint16")
            tifffile.imwrite(folder / f"{index}.tif", image)
            digest = hashlib.sha256((folder / f"{index}.tif").read_bytes()).hexdigest()
            rows.writerow([f"served/{index}.tif", digest, f"{address}/{index}.tif", "", ""])
    source = {"kind": "download", "registry": "served.csv"}
    project.add_dataset("served", {"source": source, "noisy": "served/*.tif", "axes": "YX", "noise_direction": "x"})
    project.configure(datasets=["served"], baselines=["noisy"])
    project.snakemake("download_all", DVLAE_DATA_MIRROR="")
    project.snakemake(before=without_network, DVLAE_DATA_MIRROR="")
    assert project.files("served/dvlae-rf4/seed0/denoised/*") == [
        f"served/dvlae-rf4/seed0/denoised/{index}.tif" for index in range(2)
    ]
    assert project.files("tables/summary.csv")
