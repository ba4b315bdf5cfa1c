from dvlae.config.dataset import DatasetSettings
from dvlae.config.grid import Method, dvlae_method
from dvlae.config.messages import validate
from dvlae.config.report_names import TABLES, TYPESET_TABLES, Contents, figures, planned_contents
from dvlae.config.settings import Settings

NOISY, TRAINED = Method("noisy"), [dvlae_method(field, "nonlinear") for field in (4, 40)]
OF_EACH_TRAINING = {
    "kl_per_level_small",
    "side_by_side_small",
    "panel_small",
    "removed_noise_small",
    "training_curves_small",
}
OVER_CLEAN = {"calibration_small", "paired_psnr_small", "spectra_small", "quality_over_time"}


def names(*methods, measured=True, sampled=True):
    return {figure.name for figure in figures({"small": Contents(methods, measured, sampled)})}


def test_trained_methods_compared_with_clean_images_have_every_figure():
    assert names(NOISY, *TRAINED) == OF_EACH_TRAINING | OVER_CLEAN | {"receptive_field"}


def test_without_clean_images_nothing_is_compared_with_them():
    assert names(NOISY, *TRAINED, measured=False) == OF_EACH_TRAINING | {"receptive_field"}


def test_without_samples_there_is_no_deviation_to_check():
    assert names(NOISY, TRAINED[0], sampled=False) == OF_EACH_TRAINING | OVER_CLEAN - {"calibration_small"}


def test_baselines_alone_have_no_figures_of_training():
    of_each = {"panel_small", "side_by_side_small", "removed_noise_small"}
    assert names(NOISY, Method("gaussian")) == of_each | {"paired_psnr_small", "spectra_small", "quality_over_time"}


def test_one_receptive_field_for_each_dataset_is_no_comparison_of_receptive_fields():
    auto = Method("dvlae-auto", "auto")
    assert names(NOISY, auto) == names(NOISY, auto, TRAINED[0]) == OF_EACH_TRAINING | OVER_CLEAN


def test_a_configuration_tells_what_there_will_be_to_show():
    dataset = {"source": {"kind": "skimage"}, "noisy": "*.png", "axes": "YX", "noise_direction": "x"}
    settings = Settings(receptive_fields=[4, 40], seeds=[0, 1], baselines=["noisy"], prediction={"samples": 1})
    contents = planned_contents(settings, {"small": validate(DatasetSettings, dataset, "")})
    assert contents == {"small": Contents([*TRAINED, NOISY], measured=False, sampled=False)}


def test_typeset_tables_are_tables():
    assert set(TYPESET_TABLES) < set(TABLES)
