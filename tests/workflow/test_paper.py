"""The paper's whole grid of datasets, each a stand-in that a server on this machine has: from download to tables."""

import csv
import functools
import hashlib
import http.server
import shutil
import threading
import zipfile
import zlib
from urllib.parse import unquote, urlsplit

import imageio.v3
import numpy as np
import pytest
import tifffile
import yaml

from dvlae.data.registry import read_lock
from project import REPOSITORY, Project, jobs

pytestmark = pytest.mark.workflow

SHIPPED = REPOSITORY / "config"
DATASETS = yaml.safe_load((SHIPPED / "paper.yaml").read_text())["datasets"]
KEPT = 2  # files of each kind that a registry of many keeps
DEAD = ("flower.tif", "actin-confocal-lowsnr.tif")  # first addresses, so that the second ones have to do
TINY = {
    "receptive_fields": [4],
    "seeds": [0],
    "baselines": ["noisy"],
    "results": "results",
    "device": "cpu",
    "model": {"levels": 2, "channels": 4, "latent_channels": 2},
    "training": {"patch_size": 32, "batch_size": 2, "accumulate": 2, "max_steps": 4, "max_minutes": None},
    "prediction": {"samples": 2},
}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Serve a folder; return it and its address."""
    folder = tmp_path_factory.mktemp("server")
    handler = functools.partial(Quiet, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def picture(name: str) -> np.ndarray:
    """Return a stand-in for a file: counted photons of a ramp, with the file's axes, small where its dataset allows."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    if name.startswith("sem_line"):
        return random.poisson(np.linspace(20, 90, 512), (471, 512))[..., None].repeat(3, axis=2).astype(np.uint8)
    if name.startswith("kodak24"):
        return random.poisson(np.linspace(20, 200, 64)[:, None], (48, 64, 3)).clip(0, 255).astype(np.uint8)
    frames = 10 if name.startswith("mito") else 2
    rows, columns = (520, 520) if name.startswith("convallaria") else (48, 64)
    return random.poisson(np.linspace(100, 900, columns), (frames, rows, columns)).astype(np.uint16)


def serve_stand_ins(registry: str, folder, address: str) -> str:
    """Make the files that a registry names; return the registry with the server's addresses and the files' hashes."""
    header, *rows = csv.reader(registry.splitlines())
    kept, kinds = [header], {}
    for file, sha256, url, member, archive_sha256 in rows:
        kind = file.rpartition("/")[0]
        kinds.setdefault(kind, set()).add(file)
        if len(kinds[kind]) > KEPT:
            continue
        place = urlsplit(url).path.lstrip("/")
        path = folder / unquote(place)
        image = path.parent / (member or path.name)
        image.parent.mkdir(parents=True, exist_ok=True)
        write = imageio.v3.imwrite if image.suffix == ".png" else tifffile.imwrite
        write(image, picture(file))
        if member:
            with zipfile.ZipFile(path, "w") as archive:
                archive.write(image, member)
            archive_sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.name in DEAD:
            image.unlink()
        elif sha256:
            sha256 = hashlib.sha256(image.read_bytes()).hexdigest()
        kept.append([file, sha256, f"{address}/{place}", member, archive_sha256])
    return "".join(",".join(row) + "\n" for row in kept)


@pytest.fixture(scope="module")
def paper(tmp_path_factory, server, forked):
    """Run `config/paper.yaml` on stand-ins, with a budget of steps."""
    project = Project(tmp_path_factory.mktemp("paper"))
    without = shutil.ignore_patterns("*.lock")  # of files that were downloaded for real
    shutil.copytree(SHIPPED, project.folder / "config", ignore=without, dirs_exist_ok=True)
    for path in (project.folder / "config/datasets").glob("*.csv"):
        path.write_text(serve_stand_ins(path.read_text(), *server))
    (project.folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    project.configfiles = ("--configfile", "config/paper.yaml", "tiny.yaml")
    one_thread = ("--set-threads", "train=1", "predict=1")  # so small, they are slower on two
    project.printed = project.snakemake(*project.configfiles, *one_thread, DVLAE_DATA_MIRROR="", **forked)
    return project


def scores(project: Project, dataset: str) -> list[dict]:
    table = project.read(f"{dataset}/noisy/seed0/psnr.csv").decode()
    return list(csv.DictReader(table.splitlines()))


def test_every_dataset_goes_from_download_to_the_summary(paper):
    done = jobs(paper.printed)
    assert (done["download"], done["train"], done["predict"]) == (len(DATASETS),) * 3
    summary = csv.DictReader(paper.read("tables/summary.csv").decode().splitlines())
    assert {row["dataset"] for row in summary} == set(DATASETS)


def test_a_second_run_finds_nothing_to_do(paper):
    assert paper.planned(*paper.configfiles) == {}


def test_convallaria_comes_out_of_the_archive_where_its_first_address_is_dead(paper):
    listed = next(csv.DictReader((paper.folder / "data/convallaria.files.csv").open()))
    assert "/Struct_Convallaria.zip" in listed["origin"]


def test_hashes_that_nobody_knew_are_recorded_beside_the_registries_and_said(paper):
    datasets = paper.folder / "config/datasets"
    recorded = {file for path in datasets.glob("*.lock") for file in read_lock(path)}
    assert recorded == {
        "convallaria/flower.tif",
        "mito_confocal/mito-confocal-lowsnr.tif",
        "mito_confocal/mito-confocal-highsnr.tif",
    }
    assert all(f"{file}: its sha256 is not published" in paper.printed for file in recorded)


def test_the_last_eight_images_of_mito_confocal_are_evaluated(paper):
    expected = [f"mito-confocal-lowsnr_{number}" for number in range(2, 10)]
    assert [row["image"] for row in scores(paper, "mito_confocal")] == expected


@pytest.mark.parametrize("dataset", ["actin_confocal", "support"])
def test_without_clean_images_there_is_everything_but_psnr(paper, dataset):
    assert {row["psnr"] for row in scores(paper, dataset)} == {""}
    assert paper.json(f"figures/noise_{dataset}.json")["images"] == 2
    run = f"{dataset}/dvlae-rf4/seed0"
    assert paper.files(f"{run}/denoised/*.tif") and paper.files(f"{run}/uncertainty/*.tif")
    assert "val_log_likelihood" in paper.read(f"{run}/model/history.csv").decode().partition("\n")[0]
    kinds = ("panel", "side_by_side", "removed_noise", "training_curves", "kl_per_level")
    assert paper.files(f"figures/*_{dataset}.png") == sorted(
        f"figures/{kind}_{dataset}.png" for kind in (*kinds, "noise")
    )


def test_tables_and_figures_hold_datasets_with_and_without_clean_images(paper):
    for table in ("summary", "measures", "methods", "receptive_field", "noise"):
        rows = csv.DictReader(paper.read(f"tables/{table}.csv").decode().splitlines())
        assert {row["dataset"] for row in rows} == set(DATASETS), table
    for suffix in ("md", "tex", "html"):
        text = paper.read(f"tables/summary.{suffix}").decode()
        assert "Where there is no clean image, there is no PSNR." in text
        assert "COSDD" in text and "nan" not in text.lower()
    assert paper.files("figures/quality_over_time.png")
    assert paper.files("figures/spectra_*.png") and not paper.files("figures/spectra_support.png")


def test_the_second_address_of_a_recording_is_taken_where_the_first_is_dead(paper):
    listed = next(csv.DictReader((paper.folder / "data/actin_confocal.files.csv").open()))
    assert listed["origin"].endswith("/10925855/files/noisy.tiff")


def test_white_noise_is_trained_with_a_receptive_field_of_0_alone(paper):
    models = paper.files("kodak_white/dvlae-rf*/seed0/model/model.json")
    assert models == ["kodak_white/dvlae-rf0/seed0/model/model.json"]


def test_the_whole_grid_can_be_planned(paper):
    planned = paper.planned("--configfile", "config/paper.yaml")
    receptive_fields, seeds = 4, 3
    assert planned["train"] == (receptive_fields * (len(DATASETS) - 1) + 1) * seeds
