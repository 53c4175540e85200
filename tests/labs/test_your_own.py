"""One's own pictures and model: the classifier, its files, a new family."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from serial_lora import (
    LoRAConfig,
    SerialLoRAConfig,
    SerialLoRAError,
    adapters,
    eject,
    inject,
    load_adapter,
    merge,
    save_adapter,
)
from serial_lora import attention as families
from serial_lora.sites import AttentionSite, Projection
from serial_lora_course.data.example_folder import write_example_folder
from serial_lora_course.data.folder import load_folder
from serial_lora_course.labs.own import (
    PictureClassifier,
    Preprocessing,
    load_classifier,
    picture_features,
    save_classifier,
)
from serial_lora_course.work.folder import train_on
from serial_lora_course.work.job import ClassifyConfig, Job
from tests.labs.lab_models import same_tensors, small_clip, state_of
from tests.labs.parallel_vit import ParallelBlock, ParallelViT


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    return write_example_folder(tmp_path_factory.mktemp("own") / "pictures")


# ------------------------------------------------------------------------- any vision model

SIDE = 16


def timm_vit() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=SIDE, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=5
    )


def of_transformers(name: str, config: str, **options) -> nn.Module:
    import transformers

    sizes = dict(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=8,
        intermediate_size=16,
    )
    configured = getattr(transformers, config)
    if config == "CLIPConfig":
        text = sizes | dict(vocab_size=40, max_position_embeddings=6)
        made = configured(text_config=text, vision_config=sizes, projection_dim=8)
    else:
        made = configured(**sizes, **options)
    return getattr(transformers, name)(made)


VISION = {
    "open_clip": (small_clip, 8),
    "timm": (timm_vit, 16),
    "ViT": (lambda: of_transformers("ViTModel", "ViTConfig"), 16),
    "DINOv2": (lambda: of_transformers("Dinov2Model", "Dinov2Config", mlp_ratio=1), 16),
    "CLIP": (lambda: of_transformers("CLIPModel", "CLIPConfig"), 8),
    "CLIP vision": (lambda: of_transformers("CLIPVisionModel", "CLIPVisionConfig"), 16),
}
each_model = pytest.mark.parametrize("name", VISION)


@torch.no_grad()
def expected_features(name: str, model: nn.Module, pictures: torch.Tensor) -> torch.Tensor:
    """The vector as each library's own documentation gets it."""
    if name == "open_clip":
        return model.visual(pictures)
    if name == "open_clip tower":
        return model(pictures)
    if name == "timm":
        model = copy.deepcopy(model)
        model.reset_classifier(0)
        return model(pictures)
    output = (
        model.vision_model(pixel_values=pictures)
        if name == "CLIP"
        else model(pixel_values=pictures)
    )
    if name == "CLIP":
        return model.visual_projection(output[1])
    if name == "CLIP projected":
        return output.image_embeds
    return output[1] if name == "CLIP vision" else output[0][:, 0]


@each_model
def test_features_are_the_librarys(name):
    torch.manual_seed(0)
    build, width = VISION[name]
    model, pictures = build().eval(), torch.randn(3, 3, SIDE, SIDE)
    with torch.no_grad():
        found = picture_features(model, pictures)
    assert found.shape == (3, width)
    torch.testing.assert_close(found, expected_features(name, model, pictures))


def short(folder, seed: int = 1) -> Job:
    folder.mkdir(exist_ok=True)
    config = ClassifyConfig(rank=2, epochs=1, min_steps=2, batch_size=8)
    return Job("", "", str(folder), seed=seed, config=config)


@each_model
def test_the_page_runs_with_any_model_and_its_files_bring_it_back(name, own, tmp_path):
    torch.manual_seed(0)
    model = VISION[name][0]().eval()
    first, data = copy.deepcopy(model), load_folder(own)
    classifier = PictureClassifier(model, data.class_names, Preprocessing(SIDE))
    towers = None if name == "CLIP vision" else ["image"]
    inject(classifier.model, SerialLoRAConfig(rank=2, towers=towers))
    before = state_of(classifier.model)[0]
    history = train_on(classifier, data.train.some(range(0, 100, 7)), short(tmp_path), False)
    assert history.losses[0] == pytest.approx(np.log(len(data.class_names)), rel=1e-3)
    after = state_of(classifier.model)[0]
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved and all("lora_" in key for key in moved)
    assert classifier.head.weight.abs().max() > 0

    save_classifier(classifier, tmp_path / "own")
    again = load_classifier(first, tmp_path / "own")
    assert again.class_names == data.class_names
    few = torch.randn(4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = classifier(few)
        torch.testing.assert_close(again(few), expected)
        eject(classifier.model, keep_merged=True)
        torch.testing.assert_close(classifier(few), expected, rtol=1e-4, atol=1e-5)


def test_a_model_in_half_precision_takes_the_same_pictures():
    torch.manual_seed(0)
    whole, pictures = timm_vit(), torch.randn(3, 3, SIDE, SIDE)
    half = PictureClassifier(copy.deepcopy(whole).bfloat16(), ["a", "b"])
    inject(half.model, SerialLoRAConfig(rank=2))
    with torch.no_grad():
        expected = PictureClassifier(whole, ["a", "b"]).features(pictures)
        torch.testing.assert_close(half.features(pictures), expected, rtol=0, atol=0.1)
    assert half(pictures).dtype == torch.float32


def test_the_same_seed_gives_the_same_classifier(own, tmp_path):
    data, heads = load_folder(own), []
    for seed in (1, 1, 2):
        torch.manual_seed(0)
        classifier = PictureClassifier(timm_vit(), data.class_names)
        inject(classifier.model, SerialLoRAConfig(rank=2, dropout=0.2))
        train_on(
            classifier, data.train.some(range(16)), short(tmp_path / f"{len(heads)}", seed), False
        )
        heads.append(classifier.head.state_dict())
    assert same_tensors(heads[0], heads[1]) and not same_tensors(heads[0], heads[2])


# ------------------------------------------------------------------------- a family of one's own


@pytest.fixture
def register(monkeypatch):
    """register_family, with the list of families as it was after the test."""
    monkeypatch.setattr(families, "FAMILIES", list(families.FAMILIES))
    return families.register_family


def parallel_sites(model):
    for name, block in model.named_modules():
        if isinstance(block, ParallelBlock):
            yield one_site(name, block.attention.query.in_features)


def one_site(name: str, width: int) -> AttentionSite:
    def of(path, start=0):
        return Projection(f"{name}.attention.{path}", "weight", start, width, width)

    parts = {"q": of("query"), "k": of("key_value"), "v": of("key_value", width)}
    index = int(name.split(".")[-1])
    return AttentionSite(name, "image", index, width, None, parts | {"out": of("collect")})


def with_dense_weights(plain: ParallelViT, adapted: nn.Module, beside: bool) -> ParallelViT:
    """The plain model with the pairs of an adapted one multiplied out into its own weights.

    ``beside`` for LoRA's own pairs; else Serial LoRA's, in front of the attention alone.
    """
    tensors, model = adapted.state_dict(), copy.deepcopy(plain)
    for index, block in enumerate(model.stages):
        layers, prefix = block.attention, f"stages.{index}"
        key, value = layers.key_value.weight.chunk(2)
        weights = {"q": layers.query.weight, "k": key, "v": value}
        if beside:
            for part, weight in (weights | {"out": layers.collect.weight}).items():
                weight += product_of(tensors, f"{prefix}.lora_{part}")
        else:
            dense = torch.eye(key.shape[-1]) + product_of(tensors, f"{prefix}.serial_lora")
            for weight in weights.values():
                weight.copy_(torch.einsum("oi,id->od", weight, dense))
    return model


def product_of(tensors: dict[str, torch.Tensor], pair: str) -> torch.Tensor:
    """B A of a pair in a state dict."""
    return torch.einsum("or,rd->od", tensors[f"{pair}.lora_B"], tensors[f"{pair}.lora_A"])


@torch.no_grad()
@pytest.mark.parametrize(("config", "beside"), [(SerialLoRAConfig, False), (LoRAConfig, True)])
def test_a_registered_family_is_adapted_merged_and_saved(register, config, beside, tmp_path):
    torch.manual_seed(0)
    plain = ParallelViT(image_size=8, patch=4, width=12, heads=3, depth=2).eval()
    with pytest.raises(SerialLoRAError, match="register_family"):
        inject(plain, config(rank=2))
    assert register(parallel_sites) is parallel_sites
    model = inject(copy.deepcopy(plain), config(rank=2))
    for pair in adapters(model).values():
        pair.lora_B.normal_(std=0.3)
    pictures = torch.randn(2, 3, 8, 8)
    expected = with_dense_weights(plain, model, beside)(pictures).detach()
    torch.testing.assert_close(model(pictures), expected, rtol=1e-4, atol=1e-5)
    file = save_adapter(model, tmp_path / "own.safetensors")
    torch.testing.assert_close(load_adapter(copy.deepcopy(plain), file)(pictures), model(pictures))
    torch.testing.assert_close(merge(model)(pictures), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(eject(model)(pictures), plain(pictures))
