"""A grid of runs as the workflow leaves it on disk."""

import json
import os
import time

import yaml

from dvlae.config.messages import validate
from dvlae.config.settings import Settings, TrainSettings
from dvlae.runs.status import survey


class Grid:
    """The files that the workflow leaves, of one dataset, one method and two seeds."""

    def __init__(self, folder):
        self.results = folder / "results"
        path = folder / "small.yaml"
        dataset = {"source": {"kind": "skimage"}, "noisy": "*.png", "axes": "YX", "noise_direction": "x"}
        path.write_text(yaml.safe_dump(dataset))
        self.settings = validate(
            Settings,
            {
                "datasets": [str(path)],
                "receptive_fields": [4],
                "seeds": [0, 1],
                "baselines": ["noisy"],
                "results": str(self.results),
                "training": {"max_minutes": 10},
            },
            "test",
        )

    def log(self, name, text, *, silent=0, finished=False, exit_status=0):
        log = self.results / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
        then = time.time() - silent
        os.utime(log, (then, then))
        if exit_status:
            log.with_name(f"{log.name}.failed").write_text(f"{exit_status} {text.splitlines()[-1]}\n")
        if finished:
            benchmark = self.results / "benchmarks" / f"{name}.tsv"
            benchmark.parent.mkdir(parents=True, exist_ok=True)
            benchmark.write_text("s\n1.0\n")

    def trained(self, seed=0, channels=None, *, older=False):
        model = self.results / f"small/dvlae-rf4/seed{seed}/model"
        model.mkdir(parents=True)
        step = TrainSettings.of(self.settings)
        settings = step.identity() if older else step.record()
        if channels is not None:
            settings["model"]["channels"] = channels
        (model / "run.json").write_text(json.dumps({"settings": settings, "seconds": 300.0}))
        (model / "model.json").write_text("{}")

    def measured(self, method, seed=0, values=(30.0, 32.0)):
        path = self.results / f"small/{method}/seed{seed}/psnr.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("image,psnr\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values)))

    def states(self):
        return {(run.cell.method.name, run.cell.seed): run.state for run in survey(self.settings)[0]}
