import pytest

from dvlae.config.grid import list_methods
from dvlae.config.messages import validate
from dvlae.config.settings import ModelSettings, Settings, TrainSettings
from dvlae.config.training import TrainingSettings, training_memory
from dvlae.system.errors import UserError


def test_the_network_counts_only_where_it_is_not_ours():
    ours, paper = (TrainSettings(model=ModelSettings(network=name)) for name in ("dvlae", "paper"))
    assert "network" not in ours.identity()["model"]
    assert paper.identity()["model"] == ours.identity()["model"] | {"network": "paper"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"network": "paper", "autoregression": "linear"}, "autoregression: found 'linear', allowed: 'nonlinear', as"),
        ({"network": "unet"}, "network: found 'unet', allowed: dvlae, paper"),
    ],
)
def test_a_network_that_there_is_not_is_named(model, message):
    with pytest.raises(UserError, match=message):
        validate(Settings, {"model": model}, "a.yaml")


def test_a_method_with_a_linear_autoregression_is_refused_at_once():
    settings = validate(Settings, {"methods": ["dvlae-rf8", "dvlae-rf8-linear"], "model": {"network": "paper"}}, "a")
    with pytest.raises(UserError, match="method dvlae-rf8-linear: model: autoregression: found 'linear', allowed"):
        list_methods(settings)
    usual = settings.model_copy(update={"methods": ["dvlae-rf8"]})
    (method,) = list_methods(usual)
    assert method.configure(usual).model.network == "paper"


def test_the_papers_network_takes_more_memory():
    ours, paper = (
        training_memory(ModelSettings(network=name, channels=128), TrainingSettings(), 2, 1)
        for name in ("dvlae", "paper")
    )
    assert paper > 1.4 * ours
