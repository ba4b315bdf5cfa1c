"""The files in `config/`, as they are."""

from pathlib import Path

import pytest

from dvlae.config.grid import list_methods
from dvlae.config.loading import load_datasets
from dvlae.config.messages import validate
from dvlae.config.settings import Settings
from dvlae.config.yaml_files import read_yaml
from dvlae.data.registry import read_registry

CONFIG = Path(__file__).parents[2] / "config"
FILES = {path.stem: str(path) for path in sorted((CONFIG / "datasets").glob("*.yaml"))}
DATASETS = load_datasets(FILES.values())
SWEEP = load_datasets([FILES["sweep"]])
SIMULATED = [name for name, dataset in DATASETS.items() if dataset.simulate and name not in SWEEP]
DOWNLOADED = [name for name, dataset in DATASETS.items() if dataset.source.kind == "download"]


@pytest.mark.parametrize("file", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_is_valid_and_names_datasets_and_methods_that_are_there(file):
    settings = validate(Settings, read_yaml(CONFIG / "config.yaml") | read_yaml(file), str(file))
    assert set(settings.datasets) <= set(FILES)
    assert list_methods(settings)


def test_the_night_has_the_grid_of_the_paper():
    grids = [
        [read_yaml(CONFIG / f"{name}.yaml")[key] for key in ("datasets", "receptive_fields", "seeds")]
        for name in ("paper", "paper_night")
    ]
    assert grids[0] == grids[1]


def test_no_two_configurations_share_a_folder_of_results():
    folders = [read_yaml(file)["results"] for file in CONFIG.glob("*.yaml")]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_says_its_title_licence_and_source(name):
    assert DATASETS[name].title and DATASETS[name].license and DATASETS[name].citation


@pytest.mark.parametrize("name", SIMULATED)
def test_simulated_noise_is_that_of_the_published_figures(name):
    dataset = DATASETS[name]
    correlated = [round(0.6**lag, 9) for lag in range(8)]
    assert dataset.simulate.model_dump() == {
        "photons": 50,
        "kernel": [1.0] if dataset.noise_direction == "none" else correlated,
        "read_noise": 0.02,
        "offset": 0.0,
        "bits": 8,
        "frames": 1,
        "seed": 0,
    }


def test_the_sweep_is_four_lengths_and_two_strengths_on_images_that_nothing_was_tuned_on():
    assert list(SWEEP) == [f"sweep_length{length}_photons{number}" for length in (0, 1, 4, 16) for number in (10, 100)]
    for name, dataset in SWEEP.items():
        assert not set(dataset.noisy) & set(DATASETS["simulated"].noisy)
        assert name == f"sweep_length{len(dataset.simulate.kernel) - 1}_photons{dataset.simulate.photons:g}"
        assert (dataset.simulate.read_noise, dataset.simulate.bits) == (0.02, None)


def test_the_kodak_datasets_differ_in_nothing_but_the_noise():
    def rest(name):
        return DATASETS[name].model_dump(exclude={"title", "noise_direction", "simulate"})

    assert rest("kodak_rows") == rest("kodak_columns") == rest("kodak_white")
    assert [DATASETS[f"kodak_{kind}"].noise_direction for kind in ("rows", "columns", "white")] == ["x", "y", "none"]


@pytest.mark.parametrize("name", DOWNLOADED)
def test_every_registry_can_be_read(name):
    assert read_registry(DATASETS[name].source.registry)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_every_dataset_that_is_downloaded_says_how_large_it_is(name):
    assert DATASETS[name].size


def test_the_actin_recording_has_two_addresses_of_which_the_second_has_a_hash():
    (addresses,) = read_registry(DATASETS["actin_confocal"].source.registry).values()
    assert [len(address.sha256) for address in addresses] == [0, 64]


def test_the_kodak_registry_names_the_24_photographs_with_their_hashes():
    registry = read_registry(DATASETS["kodak_rows"].source.registry)
    assert sorted(registry) == [f"kodak24/{number:02d}.png" for number in range(1, 25)]
    assert all(len(address.sha256) == 64 for addresses in registry.values() for address in addresses)
