"""Networks: heads, bands, what freezing leaves untouched, which initial weights fit."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torchvision import models

from pipeline.errors import ModelError
from pipeline.model.classes import number_classes
from pipeline.model.network import (
    ARCHITECTURES,
    HEADS,
    Architecture,
    build_network,
    first_convolution,
    freeze,
    head_of,
    inflate,
    load_weights,
    unfreeze,
)
from pipeline.model.predictor import Predictor
from pipeline.options import PredictorOptions
from pipeline.values import PixelTransform
from tests.support.cards import RGB_CARD


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


def test_the_mlp_head_has_the_documented_layers():
    head = head_of(build_network("resnet18", bands=3, classes=5, head="mlp", dropout=0.3))
    assert [type(layer) for layer in head] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear, nn.LogSoftmax]
    assert (head[0].in_features, head[0].out_features) == (512, 256)
    assert (head[3].in_features, head[3].out_features) == (256, 5)
    assert head[2].p == 0.3


def test_the_mlp_head_gives_log_probabilities_that_a_softmax_leaves_unchanged():
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


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ModelError, match=r"'resnet51'; known are resnet50, wide_resnet50_2"):
        build_network("resnet51", bands=3, classes=3)
    with pytest.raises(ModelError, match=r"'mpl'; known are linear, mlp"):
        build_network("resnet18", bands=3, classes=3, head="mpl")
    with pytest.raises(ModelError, match=r"'large'; known are standard, unpooled, full"):
        build_network("resnet18", bands=3, classes=3, stem="large")


@pytest.mark.parametrize(("stem", "pixels"), [("standard", 16), ("unpooled", 32), ("full", 64)])
@pytest.mark.parametrize("bands", [3, 13])
def test_each_stem_keeps_its_resolution_and_the_same_tensors(stem, pixels, bands):
    with torch.device("meta"):
        network = build_network("resnet18", bands=bands, classes=3, stem=stem).eval()
        seen = []
        network.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[-1]))
        network(torch.empty(1, bands, 64, 64))
        assert seen == [pixels]
        standard = build_network("resnet18", bands=bands, classes=3)
        assert {n: t.shape for n, t in network.state_dict().items()} == {
            n: t.shape for n, t in standard.state_dict().items()
        }


def test_a_stem_that_the_architecture_does_not_have_is_refused():
    message = r"'full' is not available for mobilenet_v2 \(only standard\): .* set 'upsample'"
    with pytest.raises(ModelError, match=message):
        build_network("mobilenet_v2", bands=3, classes=3, stem="full")


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_upsampling_is_part_of_the_network_and_leaves_its_weights_alone(architecture):
    plain = build_network(architecture, bands=4, classes=3).eval()
    enlarging = build_network(architecture, bands=4, classes=3, upsample=3.5).eval()
    enlarging.load_state_dict(plain.state_dict())
    x = torch.randn(2, 4, 32, 32)
    with torch.no_grad():
        enlarged = nn.functional.interpolate(x, size=(112, 112), mode="bilinear")
        torch.testing.assert_close(enlarging(x), plain(enlarged))


@pytest.mark.parametrize("changes", [{"stem": "full"}, {"upsample": 2.0}])
def test_a_network_with_a_stem_or_upsampling_predicts_the_same(changes):
    """Predicting folds batch norms, which rebuilds the network."""
    card = replace(RGB_CARD, architecture="resnet18", classes=number_classes("ABC"), tile_size=32, **changes)
    network = build_network("resnet18", bands=3, classes=3, **changes).eval()
    tiles = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    predictor = Predictor(network, card, PredictorOptions(device="cpu", precision="float32"))
    probabilities = predictor.predict_tiles(tiles.numpy(), PixelTransform.identity(3))
    with torch.no_grad():
        expected = network(tiles.float()).softmax(dim=1)
    torch.testing.assert_close(torch.from_numpy(probabilities), expected, rtol=1e-3, atol=1e-5)


def test_the_backbone_is_copied_and_the_head_only_if_asked():
    source, target = (build_network("resnet18", bands=3, classes=3) for _ in range(2))
    head_before = head_of(target)[1].weight.clone()
    assert load_weights(target, source.state_dict()) == []
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert torch.equal(target.bn1.running_mean, source.bn1.running_mean)
    assert torch.equal(head_of(target)[1].weight, head_before)
    assert load_weights(target, source.state_dict(), head=True) == []
    assert torch.equal(head_of(target)[1].weight, head_of(source)[1].weight)


def test_tensors_that_the_weights_lack_are_listed_without_counts_of_batches():
    weights = build_network("resnet18", bands=3, classes=3).state_dict()
    weights = {name: tensor for name, tensor in weights.items() if "num_batches_tracked" not in name}
    assert load_weights(build_network("resnet18", bands=3, classes=3), weights) == []
    del weights["bn1.running_var"]
    assert load_weights(build_network("resnet18", bands=3, classes=3), weights) == ["bn1.running_var"]


def small_transformer(weights: None, num_classes: int, image_size: int) -> nn.Module:
    return models.VisionTransformer(image_size, 16, 1, 4, 48, 96, num_classes=num_classes)


def small_convnext(weights: None, num_classes: int) -> nn.Module:
    stages = [models.convnext.CNBlockConfig(16, 32, 1), models.convnext.CNBlockConfig(32, None, 1)]
    return models.ConvNeXt(stages, num_classes=num_classes)


# torchvision's layouts: one has its head below another module, the other as the last of three layers.
NEW_ROWS = {
    "vit": Architecture(
        small_transformer,
        "heads.head",
        stems={"standard": lambda network: None, "full": lambda network: None},
        arguments={"image_size": 32},
    ),
    "convnext": Architecture(small_convnext, "classifier.2"),
}


@pytest.mark.parametrize("name", NEW_ROWS)
def test_an_architecture_is_one_row(name, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, name, NEW_ROWS[name])
    for head in HEADS:
        network = build_network(name, bands=5, classes=3, head=head).eval()
        with torch.no_grad():
            assert network(torch.randn(2, 5, 32, 32)).shape == (2, 3)
        freeze(network)
        learning = {tensor for tensor, p in network.named_parameters() if p.requires_grad}
        assert learning
        assert all(tensor.startswith(NEW_ROWS[name].head + ".") for tensor in learning)


@pytest.mark.parametrize("name", NEW_ROWS)
def test_a_new_architecture_loads_torchvisions_weights_but_for_the_head(name, monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, name, NEW_ROWS[name])
    published = NEW_ROWS[name].constructor(weights=None, num_classes=7, **NEW_ROWS[name].arguments)
    network = build_network(name, bands=3, classes=3)
    assert load_weights(network, published.state_dict()) == []
    first = f"{first_convolution(network)}.weight"
    assert torch.equal(network.state_dict()[first], published.state_dict()[first])


def test_a_row_says_which_stems_an_architecture_has(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "vit", NEW_ROWS["vit"])
    build_network("vit", bands=3, classes=3, stem="full")
    with pytest.raises(ModelError, match=r"'unpooled' is not available for vit \(only standard, full\)"):
        build_network("vit", bands=3, classes=3, stem="unpooled")


def test_the_imagenet_weights_of_every_row_are_torchvisions_first():
    for name, row in ARCHITECTURES.items():
        assert row.imagenet is models.get_model_weights(name)["IMAGENET1K_V1"]


def test_weights_of_another_architecture_are_refused():
    weights = build_network("resnet18", bands=3, classes=3).state_dict()
    with pytest.raises(ModelError, match="belong to another architecture"):
        load_weights(build_network("mobilenet_v2", bands=3, classes=3), weights)
    with torch.device("meta"):
        wide = build_network("wide_resnet50_2", bands=3, classes=3)
        weights = build_network("resnet50", bands=3, classes=3).state_dict()
    with pytest.raises(ModelError, match="belong to another architecture"):
        load_weights(wide, weights)


RGB = ("B04", "B03", "B02")
ALL = (*tuple(f"B{i:02}" for i in range(1, 13)), "B8A")


def test_known_bands_keep_their_slice_and_others_get_the_mean():
    kernel = torch.randn(8, 3, 7, 7)
    inflated = inflate(kernel, RGB, ALL)
    assert inflated.shape == (8, 13, 7, 7)
    for i, band in enumerate(RGB):
        torch.testing.assert_close(inflated[:, ALL.index(band)], kernel[:, i] * 3 / 13)
    torch.testing.assert_close(inflated[:, ALL.index("B8A")], kernel.mean(dim=1) * 3 / 13)


def test_a_tile_that_is_the_same_in_every_band_gives_the_same_response():
    kernel, pixels = torch.randn(8, 3, 7, 7), torch.randn(2, 1, 16, 16)
    before = nn.functional.conv2d(pixels.expand(-1, 3, -1, -1), kernel)
    after = nn.functional.conv2d(pixels.expand(-1, 13, -1, -1), inflate(kernel, RGB, ALL))
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_bands_in_another_order_give_the_same_network():
    kernel, tile = torch.randn(8, 3, 7, 7), torch.randn(2, 3, 16, 16)
    turned = inflate(kernel, RGB, RGB[::-1])
    torch.testing.assert_close(
        nn.functional.conv2d(tile.flip(1), turned), nn.functional.conv2d(tile, kernel), rtol=1e-4, atol=1e-4
    )


def test_a_kernel_for_thirteen_bands_gives_one_for_three():
    kernel = torch.randn(8, 13, 7, 7)
    torch.testing.assert_close(inflate(kernel, ALL, RGB), kernel[:, [3, 2, 1]] * 13 / 3)
