"""The code of the paper's authors of October 2023, from the mirror, and networks that it builds."""

import os
from pathlib import Path
from types import SimpleNamespace

import authors_code
import pytest
import torch

from skips import UNAVAILABLE

MIRROR = Path(os.environ.get("DVLAE_DATA_MIRROR", "no mirror")) / "dvlae_2023"
DIRECTIONS = {"x": "horizontal", "y": "vertical"}


def load_authors_code() -> SimpleNamespace:
    """Return the classes of their code; skip the test where it is not."""
    if not MIRROR.is_dir():
        pytest.skip(UNAVAILABLE + "the authors' code of 2023, dvlae_2023 in DVLAE_DATA_MIRROR")
    return authors_code.load_authors_code(MIRROR)


@pytest.fixture(scope="session")
def code() -> SimpleNamespace:
    """Return the classes of their code."""
    return load_authors_code()


def save_checkpoint(theirs: torch.nn.Module, path: Path) -> None:
    """Train their networks by one step with Lightning, and save its checkpoint."""
    import pytorch_lightning

    class Trained(type(theirs)):
        """Their module, with optimisers of this version of PyTorch, and no validation."""

        def configure_optimizers(self):
            networks = [torch.nn.ModuleList([self.vae, self.noise_model]), self.s_decoder]
            return [torch.optim.Adamax(network.parameters()) for network in networks]

        def on_train_epoch_end(self):
            pass

    theirs.__class__ = Trained
    trainer = pytorch_lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    side = theirs.vae.img_shape[0]
    trainer.fit(theirs, torch.utils.data.DataLoader(100 + 40 * torch.randn(2, 1, side, side), batch_size=2))
    trainer.save_checkpoint(path)
    theirs.eval()


def build_theirs(
    code: SimpleNamespace,
    direction: str = "x",
    *,
    image_channels: int = 1,
    side: int = 32,
    channels: int = 8,
    latent_channels: int = 4,
    downsampling: tuple[int, ...] = (1, 1, 1),
    blocks: int = 1,
    decoder_channels: int = 6,
    kernel: int = 5,
    pairs: int = 2,
    components: int = 3,
    out_layers: int = 1,
    mean: object = 100.0,
    std: object = 40.0,
) -> torch.nn.Module:
    """Return their networks with random weights and batch statistics, as of a training with crops of this side."""
    torch.manual_seed(0)
    theirs = code.DVLAE(
        code.LadderVAE(
            image_channels,
            (side, side),
            channels,
            [latent_channels] * len(downsampling),
            blocks,
            channels,
            downsampling=list(downsampling),
        ),
        code.PixelCNN(
            image_channels, channels, kernel, DIRECTIONS[direction], decoder_channels, pairs, out_layers, components
        ),
        code.SDecoder(image_channels, channels, channels),
        mean,
        std,
    )
    for name, value in theirs.state_dict().items():
        if name.endswith("running_mean") or name.endswith("top_prior_params"):
            value.normal_(0, 0.3)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 2)
    return theirs.eval()


# The sizes of `small_state`.
SMALL = {
    "side": 8,
    "channels": 4,
    "latent_channels": 2,
    "downsampling": (1, 1),
    "decoder_channels": 2,
    "pairs": 1,
    "components": 1,
}


def small_state() -> dict[str, torch.Tensor]:
    """Return a state with the names and the sizes of their networks, where their code is not needed."""
    torch.manual_seed(0)
    state = {"vae.top_down_layers.1.top_prior_params": torch.randn(1, 4, 2, 2)}

    def add(name: str, out: int, into: int, *kernel: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.randn(out, into, *kernel) / 4, torch.randn(out) / 4

    def add_block(name: str, gated: bool = True) -> None:
        for norm, convolution in ((0, 2), (3, 5)):
            for kind in ("weight", "bias", "running_mean", "running_var"):
                state[f"{name}.block.{norm}.{kind}"] = torch.rand(4) + 0.5
            state[f"{name}.block.{norm}.num_batches_tracked"] = torch.tensor(7)
            add(f"{name}.block.{convolution}", 4, 4, 3, 3)
        if gated:
            add(f"{name}.block.6.conv", 8, 4, 1, 1)

    add("vae.first_bottom_up.0", 4, 1, 5, 5)
    add_block("vae.first_bottom_up.2.res", gated=False)
    for level in range(2):
        up, down = f"vae.bottom_up_layers.{level}.net.0", f"vae.top_down_layers.{level}"
        add(f"{up}.pre_conv", 4, 4, 3, 3)
        add(f"{down}.deterministic_block.0.pre_conv.1", 4, 4, 1, 1)
        add(f"{down}.stochastic.conv_in_q", 4, 4, 3, 3)
        add(f"{down}.stochastic.conv_out", 4, 2, 3, 3)
        for block in (f"{up}.res", f"{down}.deterministic_block.0.res"):
            add_block(block)
    add("vae.top_down_layers.0.stochastic.conv_in_p", 4, 4, 3, 3)
    for merge in ("merge", "skip_connection_merger"):
        add(f"vae.top_down_layers.0.{merge}.layer.0", 4, 8, 1, 1)
        add_block(f"vae.top_down_layers.0.{merge}.layer.1")
    add_block("vae.final_top_down.0.res")
    for layer, into in ((0, 1), (1, 2)):
        add(f"noise_model.layers.layers.{layer}.in_conv.conv", 2, into, 1, 5)
        add(f"noise_model.layers.layers.{layer}.s_conv", 2, 4, 1, 1)
        add(f"noise_model.layers.layers.{layer}.out_conv", 2, 2, 1, 1)
    state["noise_model.layers.layers.0.in_conv.kernel_mask"] = torch.tensor([1.0, 1, 1, 1, 0]).view(1, 1, 1, 5)
    add("noise_model.out_convs.convs.0", 3, 2, 1, 1)
    for layer, out in ((0, 4), (2, 4), (4, 4), (6, 1)):
        add(f"s_decoder.net.{layer}", out, 4, 3, 3)
    return state
