"""Networks: heads, bands, what freezing leaves untouched, which initial weights fit."""

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.model.network import ARCHITECTURES, build_network, freeze, head_of, load_backbone, unfreeze


def changed_by_a_step(network: nn.Module) -> set[str]:
    """Return the names of all tensors, batch-norm statistics among them, that a training step changes."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1)
    x = torch.randn(4, 3, 32, 32) + 1
    nn.functional.cross_entropy(network(x), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    return {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bands", [3, 13])
def test_every_architecture_maps_tiles_of_any_bands_to_classes(architecture, bands):
    with torch.device("meta"):  # shapes need no arithmetic
        network = build_network(architecture, bands=bands, classes=7).eval()
        assert network(torch.empty(2, bands, 64, 64)).shape == (2, 7)


def test_mlp_head_is_as_described():
    head = head_of(build_network("resnet18", bands=3, classes=5, head="mlp", dropout=0.3))
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.LogSoftmax]
    assert (head[0].in_features, head[0].out_features) == (512, 256)
    assert (head[3].in_features, head[3].out_features) == (256, 5)
    assert head[2].p == 0.3


def test_mlp_head_gives_log_probabilities_that_a_softmax_leaves_unchanged():
    network = build_network("resnet18", bands=3, classes=5, head="mlp").eval()
    with torch.no_grad():
        output = network(torch.randn(3, 3, 32, 32))
    torch.testing.assert_close(output.exp().sum(dim=1), torch.ones(3))
    torch.testing.assert_close(output.softmax(dim=1), output.exp())


@pytest.mark.parametrize("head", ["linear", "mlp"])
@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_freeze_trains_the_head_alone(architecture, head):
    network = build_network(architecture, bands=3, classes=3, head=head)
    freeze(network)
    changed = changed_by_a_step(network)
    of_head = {name for name, tensor in network.named_parameters() if tensor.requires_grad}
    assert changed == of_head
    assert len(of_head) == len(list(head_of(network).parameters())) > 0
    assert head_of(network).training  # its dropout works


def test_unfreeze_trains_everything():
    network = build_network("mobilenet_v2", bands=3, classes=3)
    freeze(network)
    unfreeze(network)
    changed = changed_by_a_step(network)
    assert {name for name, _ in network.named_parameters()} <= changed
    assert any("running_mean" in name for name in changed)


def test_unknown_names_are_told_with_those_known():
    with pytest.raises(ModelError, match=r"'resnet51'; known are resnet50, wide_resnet50_2"):
        build_network("resnet51", bands=3, classes=3)
    with pytest.raises(ModelError, match=r"'mpl'; known are linear, mlp"):
        build_network("resnet18", bands=3, classes=3, head="mpl")


def test_backbone_weights_are_taken_over_but_never_the_head():
    source = build_network("resnet18", bands=3, classes=3)
    target = build_network("resnet18", bands=3, classes=3)
    head_before = head_of(target)[1].weight.clone()
    assert load_backbone(target, source.state_dict()) == []
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(target.bn1.running_mean, source.bn1.running_mean)
    assert torch.equal(head_of(target)[1].weight, head_before)


def test_weights_of_three_bands_start_a_network_of_more_except_its_first_layer():
    source = build_network("resnet18", bands=3, classes=1000)
    assert load_backbone(build_network("resnet18", bands=12, classes=3), source.state_dict()) == [
        "conv1.weight"
    ]


def test_weights_of_another_architecture_are_refused():
    weights = build_network("resnet18", bands=3, classes=3).state_dict()
    with pytest.raises(ModelError, match="belong to another architecture"):
        load_backbone(build_network("mobilenet_v2", bands=3, classes=3), weights)
