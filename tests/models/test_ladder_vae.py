import pytest
import torch

from dvlae.models.ladder_vae import LadderVAE
from dvlae.models.latents import gaussian_kl, log_density_ratio, take_mean
from dvlae.models.paper import PaperLadderVAE


@pytest.mark.parametrize(("levels", "levels_per_scale", "strides"), [
    (3, 1, [2, 4, 8]),
    (4, 2, [1, 2, 2, 4]),
    (14, 2, [1, 2, 2, 4, 4, 8, 8, 16, 16, 32, 32, 64, 64, 128]),
])  # fmt: skip
def test_strides(levels, levels_per_scale, strides):
    assert LadderVAE(1, 2, 1, levels, levels_per_scale).strides == [(stride, stride) for stride in strides]


def test_a_thin_axis_is_halved_by_the_coarsest_levels():
    vae = LadderVAE(2, 8, 3, 3, 1, dimensions=3, stride=(2, 8, 1))
    assert vae.strides == [(1, 2, 1), (1, 4, 1), (2, 8, 1)]
    code, kls = vae(torch.randn(2, 2, 4, 16, 5))
    assert code.shape == (2, 8, 4, 16, 5)
    assert [kl.shape[2:] for kl in kls] == [(4, 8, 5), (4, 4, 5), (2, 2, 5)]


def test_code_has_full_resolution_and_every_level_a_divergence():
    code, kls = LadderVAE(2, 8, 3, 3, 1)(torch.randn(2, 2, 16, 24))
    assert code.shape == (2, 8, 16, 24)
    assert [kl.shape for kl in kls] == [(2, 3, 8, 12), (2, 3, 4, 6), (2, 3, 2, 3)]


@pytest.mark.parametrize("kind", [LadderVAE, PaperLadderVAE])
def test_the_code_of_means_is_that_of_a_pass_whose_latents_are_their_means(kind):
    torch.manual_seed(0)
    vae, x = kind(2, 8, 3, 3, 1).eval(), torch.randn(2, 2, 16, 24)
    code, _ = vae(x, take_mean)
    assert torch.equal(vae.code_of_means(x), code)


def test_top_prior_does_not_know_the_size_of_an_image():
    torch.manual_seed(0)
    vae = LadderVAE(1, 8, 4, 3, 1).eval()
    for size in (16, 64):
        _, kls = vae(torch.zeros(1, 1, size, size))
        assert kls[-1].shape[-2:] == (size // 8, size // 8)
    assert vae.levels[-1].top_prior.shape == (1, 8, 1, 1)


def test_divergence_of_a_pattern_is_the_same_in_an_image_of_any_size():
    torch.manual_seed(0)
    vae, pattern = LadderVAE(1, 8, 4, 2, 1).eval(), torch.randn(1, 1, 16, 16)
    vae.levels[-1].top_prior.data.normal_()
    middles = []
    for periods in (7, 11):  # odd: one of them is in the middle, where no border is seen
        _, kls = vae(pattern.tile(1, 1, periods, periods), lambda level, mean, std: mean)
        sides = [slice(periods // 2 * 16 // stride, (periods // 2 + 1) * 16 // stride) for stride, _ in vae.strides]
        middles.append([kl[..., side, side] for kl, side in zip(kls, sides, strict=True)])
    for small, large in zip(*middles, strict=True):
        assert small.mean() > 0.01
        assert torch.allclose(small, large, rtol=1e-3, atol=1e-4)


def test_divergence_of_what_was_drawn_is_the_difference_of_log_densities_with_the_divergence_as_its_mean():
    mean_q, log_q, mean_p, log_p = torch.randn(4, 1, 10) / 2
    q, p = (torch.distributions.Normal(mean, log.exp()) for mean, log in ((mean_q, log_q), (mean_p, log_p)))
    latent = q.sample((40000,))[:, 0]
    ratio = log_density_ratio(latent, mean_q, log_q, mean_p, log_p)
    assert torch.allclose(ratio, q.log_prob(latent) - p.log_prob(latent), atol=1e-3)
    error = 5 * ratio.std(0) / 200
    assert ((ratio.mean(0) - gaussian_kl(mean_q, log_q, mean_p, log_p)[0]).abs() < error).all()


def test_divergence_is_the_textbook_one():
    mean_q, log_q, mean_p, log_p = torch.randn(4, 100)
    q, p = (torch.distributions.Normal(mean, log.exp()) for mean, log in ((mean_q, log_q), (mean_p, log_p)))
    expected = torch.distributions.kl_divergence(q, p)
    assert torch.allclose(gaussian_kl(mean_q, log_q, mean_p, log_p), expected, rtol=1e-4, atol=1e-5)


def test_training_on_one_value_a_channel_does_not_fail():
    vae = LadderVAE(1, 4, 2, 3, 1).train()
    code, _ = vae(torch.randn(1, 1, 8, 8))  # 1 x 1 at the top
    code.sum().backward()
    assert torch.isfinite(code).all()


@pytest.mark.parametrize(
    ("shape", "stride"), [((2, 16), None), ((2, 16, 24), None), ((2, 3, 16), (1, 8)), ((1, 8, 16, 8), None)]
)
def test_the_prior_that_is_sampled_is_the_one_of_the_divergence(shape, stride):
    torch.manual_seed(0)
    vae = LadderVAE(1, 8, 3, 3, 1, dimensions=len(shape) - 1, stride=stride).eval()
    latents, posteriors, priors = {}, {}, {}

    def sample_latent(level, mean, std):
        posteriors[level] = mean, std
        latents[level] = torch.randn_like(mean)
        return latents[level]

    def repeat(level, mean, std):
        priors[level] = mean, std
        return latents[level]

    code, kls = vae(torch.randn(shape[0], 1, *shape[1:]), sample_latent)
    assert torch.allclose(vae.sample_prior(shape, repeat), code, atol=1e-6)
    for level, kl in enumerate(kls):
        (mean_q, std_q), (mean_p, std_p) = posteriors[level], priors[level]
        assert torch.allclose(gaussian_kl(mean_q, std_q.log(), mean_p, std_p.log()), kl, atol=1e-4)


def test_recomputing_the_levels_changes_no_gradient():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        vae = LadderVAE(1, 4, 2, 3, 1).train()
        vae.recompute = recompute
        code, kls = vae(torch.linspace(-1, 1, 256).view(1, 1, 16, 16))
        (code.sum() + sum(kl.sum() for kl in kls)).backward()
        gradients.append([parameter.grad for parameter in vae.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6)
