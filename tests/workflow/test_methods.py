"""Methods that are files, in the workflow: what becomes of each is a row, and the run goes on."""

import csv

import pytest
import yaml

from project import Project, jobs

pytestmark = pytest.mark.workflow

# Each is one file in config/methods/, and nothing else.
METHODS = {
    "mean": {
        "command": "{python} {here}/mean.py {noisy} {denoised} # {seed} {minutes} {threads} {device}",
        "environment": "none.txt",
        "licence": "MIT",
    },
    "line": {"command": 'for file in {noisy}/*.tif; do cp "${file}" {denoised}; done', "seeds": True},
    "searched": {
        "command": "cp {noisy}/*.tif {denoised}; echo '{\"validation_loss\": 1}' > {record}",
        "trains": True,
        "candidates": [{"width": 1}, {"width": 2}],
    },
    "broken": {"command": "echo what it printed; exit 3; : {noisy} {denoised}"},
    "slow": {"command": "sleep 600 & sleep 600; : {noisy} {denoised}", "prediction_minutes": 0.02},
    "elsewhere": {"command": 'echo \'{"not_applicable": "needs volumes"}\' > {record}; : {noisy} {denoised}'},
    "nowhere": {"unavailable": "no released package runs it"},
}
STATUS = {"broken": "failed", "slow": "out of time", "elsewhere": "not applicable", "nowhere": "unavailable"}
MEAN = """
import pathlib, shutil, sys
for file in pathlib.Path(sys.argv[1]).iterdir():
    shutil.copy(file, sys.argv[2])
print("its interpreter is", sys.prefix)
"""


def write(project, name, **keys):
    folder = project.folder / "config/methods"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({"description": name} | keys))


def rows(project, table):
    with (project.folder / f"results/tables/{table}.csv").open() as file:
        return {row["method"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def compared(tmp_path_factory, forked):
    """Return a run of methods of all kinds, without our own."""
    project = Project(tmp_path_factory.mktemp("compared"))
    for name, keys in METHODS.items():
        write(project, name, **keys)
    (project.folder / "config/methods/none.txt").write_text("")
    (project.folder / "config/methods/mean.py").write_text(MEAN)
    configure(project, [*METHODS, "noisy"])
    project.printed = project.snakemake(**forked)
    return project


def configure(project, methods, **changes):
    project.configure(methods=methods, seeds=[0, 1], training={"max_minutes": 1}, **changes)
    # These keys would have no effect beside a list of methods.
    path = project.folder / "config/config.yaml"
    settings = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({name: settings[name] for name in settings if name != "receptive_fields"}))


def test_a_method_is_added_by_one_file_and_runs_with_each_seed_if_it_has_some(compared):
    assert jobs(compared.printed)["run_method"] == len(METHODS) + 2
    summary = rows(compared, "summary")
    assert list(summary) == [*METHODS, "noisy"]
    assert summary["line"]["psnr"] == summary["noisy"]["psnr"] != ""
    assert (summary["line"]["seeds"], summary["mean"]["seeds"]) == ("2", "1")


def test_a_method_that_does_not_denoise_has_a_row_with_its_reason_and_the_run_goes_on(compared):
    summary, methods = rows(compared, "summary"), rows(compared, "methods")
    assert {name: row["status"] for name, row in summary.items()} == dict.fromkeys(summary, "done") | STATUS
    assert {name: row["status"] for name, row in methods.items()} == dict.fromkeys(methods, "done") | STATUS
    assert all(summary[name]["reason"] and methods[name]["reason"] for name in STATUS)
    assert "needs volumes" in compared.read("tables/summary.md").decode()


def test_what_a_method_printed_is_in_its_log_and_its_command_on_the_screen(compared):
    log = compared.read("logs/run_method/small/broken/seed0.log").decode()
    assert "what it printed" in log.splitlines()
    assert "broken: runs echo what it printed; exit 3" in compared.printed


def test_the_environment_of_a_method_is_made_once_and_again_when_its_requirements_change(compared):
    assert jobs(compared.printed)["make_environment"] == 1
    log = compared.read("logs/run_method/small/mean/seed0.log").decode()
    assert f"its interpreter is {compared.folder}/data/environments/methods-python3" in log
    assert compared.planned() == {}
    requirements = compared.folder / "config/methods/none.txt"
    requirements.write_text("# another\n")
    planned = compared.planned()
    requirements.write_text("")
    assert (planned["make_environment"], planned["run_method"]) == (1, 1)


def test_a_search_is_made_once_and_recorded(compared):
    found = compared.json("small/searched/search.json")
    assert [row["validation_loss"] for row in found["candidates"]] == [1, 1]
    assert found["chosen"] == {"width": 1} == compared.json("small/searched/seed0/method.json")["settings"]
    assert rows(compared, "methods")["searched"]["candidates"] == "2"


def test_a_changed_method_file_repeats_its_method_alone(compared):
    write(compared, "line", **METHODS["line"] | {"settings": {"new": 1}})
    changed = compared.planned()
    write(compared, "line", **METHODS["line"] | {"licence": "BSD"})
    described = compared.planned()
    write(compared, "line", **METHODS["line"])
    assert changed["run_method"] == 2 and described == {}


def test_our_own_network_with_other_settings_is_a_method_beside_it(project, forked):
    model = {"channels": 12, "direct_denoiser": "mean"}
    write(project, "direct", dvlae={"receptive_field": 4, "model": model, "prediction": {"estimator": "direct"}})
    project.configure(methods=["dvlae-rf4", "direct", "noisy"])
    path = project.folder / "config/config.yaml"
    path.write_text(path.read_text().replace("receptive_fields:\n- 4\n", ""))
    assert jobs(project.snakemake("results/tables/summary.html", "--cores", "1", **forked))["train"] == 2
    settings = {
        name: project.json(f"small/{name}/seed0/model/run.json")["settings"] for name in ("dvlae-rf4", "direct")
    }
    assert [each["model"]["channels"] for each in settings.values()] == [8, 12]
    assert project.json("small/direct/seed0/prediction.json")["settings"]["estimator"] == "direct"
    methods = rows(project, "methods")
    assert methods["direct"]["tuned_by"].startswith("developed on SEM")
    assert float(methods["dvlae-rf4"]["prediction_seconds_per_megapixel"]) > 0
    assert int(methods["dvlae-rf4"]["trained_on"]) > 0


def test_a_method_that_does_not_exist_ends_the_run_before_it_starts_in_one_line(project):
    project.configure(baselines=["gausian"])
    printed = project.snakemake("--dry-run", fails=True)
    assert "methods: found 'gausian', did you mean 'gaussian'" in printed
