import torch
from torch import nn

from dvlae.training.optimizers import Muon, orthogonalise


def test_singular_values_come_close_to_one():
    torch.manual_seed(0)
    batches = [torch.randn(shape) for shape in ((3, 16, 144), (2, 32, 8), (1, 40, 16), (2, 16, 16))]
    for batch, found in zip(batches, orthogonalise(batches), strict=True):
        assert found.shape == batch.shape
        values = torch.linalg.svdvals(found)
        assert (values.min() > 0.6 or batch.shape[1] == batch.shape[2]) and values.max() < 1.3


def test_orthogonalising_keeps_the_singular_vectors():
    torch.manual_seed(0)
    left, right = torch.linalg.qr(torch.randn(6, 6))[0], torch.linalg.qr(torch.randn(9, 6))[0]
    matrix = (left @ torch.diag(torch.tensor([9.0, 5.0, 3.0, 2.0, 1.5, 1.0])) @ right.T)[None]
    turned = left.T @ orthogonalise([matrix])[0][0] @ right
    assert torch.allclose(turned, torch.diag(turned.diag()), atol=1e-4)


def test_vectors_take_the_steps_of_adam():
    torch.manual_seed(0)
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    muon, adam = Muon([ours], lr=0.1), torch.optim.Adam([theirs], lr=0.1)
    for _ in range(5):
        ours.grad = theirs.grad = torch.randn(5)
        muon.step()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_it_minimises_a_network_of_every_kind_of_layer_and_layout():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    network.to(memory_format=torch.channels_last)
    x = torch.randn(4, 1, 12, 12)
    optimizer = Muon(network.parameters(), lr=0.02)
    losses = []
    for _ in range(80):
        loss = (network(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_its_state_can_be_saved_and_restored():
    torch.manual_seed(0)

    def steps(parameter, optimizer, gradients):
        for gradient in gradients:
            parameter.grad = gradient
            optimizer.step()

    gradients = list(torch.randn(6, 4, 3))
    whole, halved = nn.Parameter(torch.zeros(4, 3)), nn.Parameter(torch.zeros(4, 3))
    steps(whole, Muon([whole], lr=0.1), gradients)
    first = Muon([halved], lr=0.1)
    steps(halved, first, gradients[:3])
    second = Muon([halved], lr=0.1)
    second.load_state_dict(first.state_dict())
    steps(halved, second, gradients[3:])
    assert torch.equal(whole, halved)
