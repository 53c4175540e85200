"""Pictures and features of models, compared with what their own library makes of them alone."""

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from serial_lora.errors import SerialLoRAError
from serial_lora_course.labs.own import PictureClassifier, picture_features, preprocessing_of
from serial_lora_course.work.vision import load_vision

SIDE = 32
SMALL = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    image_size=SIDE,
    patch_size=8,
)
SWIN = dict(
    image_size=SIDE, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4
)
SQUARE, CROPPED = {"height": SIDE, "width": SIDE}, {"shortest_edge": 40}


def cropped(**options):
    return dict(size=CROPPED, crop_size=SQUARE, do_center_crop=True, **options)


def class_token(output):
    return output.last_hidden_state[:, 0]


def mean_of_tokens(output):
    return output.last_hidden_state.mean(1)


def pooled(output):
    return output.pooler_output


#: model, its configuration, its processor, and the vector that its documentation takes.
TRANSFORMERS = {
    "ViT": ("ViT", SMALL, "ViT", dict(size=SQUARE), class_token),
    "DINOv2": ("Dinov2", SMALL | {"mlp_ratio": 1}, "Bit", cropped(image_mean=[0.4] * 3), pooled),
    "SigLIP's image tower": ("SiglipVision", SMALL, "Siglip", dict(size=SQUARE), pooled),
    "CLIP's image tower": ("CLIPVision", SMALL, "CLIP", cropped(), pooled),
    "BEiT": ("Beit", SMALL, "Beit", dict(size=SQUARE, do_center_crop=False), pooled),
    "Swin": ("Swin", SWIN, "ViT", dict(size=SQUARE, image_std=[0.2] * 3), mean_of_tokens),
}


def save(name, folder):
    """A random model in a folder as the hub has them: its weights beside its processor."""
    kind, sizes, processor, options, _ = TRANSFORMERS[name]
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**sizes))
    model.save_pretrained(folder)
    if processor:
        getattr(transformers, f"{processor}ImageProcessor")(**options).save_pretrained(folder)
    return model.eval()


def noise(width=90, height=60):
    """Smooth, so that two ways of resizing differ by roundings alone."""
    coarse = np.random.default_rng(0).integers(0, 255, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_models_of_transformers_see_and_give_what_their_library_does(name, tmp_path):
    theirs, (*_, vector) = save(name, tmp_path), TRANSFORMERS[name]
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(noise(), return_tensors="pt")["pixel_values"]
    ours = load_vision(str(tmp_path))
    prepared = preprocessing_of(ours).for_test()(noise())[None]
    torch.testing.assert_close(prepared, expected, rtol=0, atol=0.05)  # of 1 / std: two levels
    with torch.no_grad():
        found = picture_features(ours, expected)
        torch.testing.assert_close(found, vector(theirs(pixel_values=expected)))


@pytest.mark.parametrize("name", ["ViT", "DINOv2"])
def test_a_model_of_transformers_takes_larger_pictures(name, tmp_path):
    theirs = save(name, tmp_path)
    ours = load_vision(str(tmp_path))
    prepare = preprocessing_of(ours, 2 * SIDE)
    pictures = torch.stack([prepare.for_test()(noise())] * 2)
    assert pictures.shape[2:] == (2 * SIDE, 2 * SIDE)
    with torch.no_grad():
        how = {"interpolate_pos_encoding": True} if name == "ViT" else {}
        expected = theirs(pixel_values=pictures, **how).last_hidden_state[:, 0]
        torch.testing.assert_close(picture_features(ours, pictures), expected)


def test_a_folder_that_does_not_say_how_pictures_are_normalised_is_refused(tmp_path):
    save("ViT", tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SerialLoRAError, match="preprocessor_config.json"):
        preprocessing_of(load_vision(str(tmp_path)))


def test_a_model_that_draws_lots_is_refused():
    config = transformers.ViTMAEConfig(**SMALL, mask_ratio=0.75)
    torch.manual_seed(0)
    model = transformers.ViTMAEModel(config)
    from serial_lora_course.labs.own import Preprocessing

    with pytest.raises(SerialLoRAError, match="each time"):
        PictureClassifier(model, ["a", "b"], Preprocessing(SIDE))


TIMM = {
    "class token": ("test_vit", {}),
    "attention pooling": ("vit_tiny_patch16_224", dict(img_size=64, global_pool="map", depth=1)),
    "mean of tokens": ("beit_base_patch16_224", dict(embed_dim=24, num_heads=2, depth=1)),
    "windows": ("swin_tiny_patch4_window7_224", dict(embed_dim=8, depths=(1, 1), num_heads=(1, 2))),
    "attention and convolutions": ("test_maxvit", {}),
}


@pytest.mark.parametrize("name", TIMM)
def test_models_of_timm_see_and_give_what_their_library_does(name):
    architecture, options = TIMM[name]
    torch.manual_seed(0)
    model = timm.create_model(architecture, pretrained=False, num_classes=0, **options).eval()
    said = timm.data.resolve_model_data_config(model)
    if "img_size" in options:
        said["input_size"] = (3, options["img_size"], options["img_size"])
    expected = timm.data.create_transform(**said, is_training=False)(noise())
    prepared = preprocessing_of(model).for_test()(noise())
    torch.testing.assert_close(prepared, expected)
    with torch.no_grad():
        torch.testing.assert_close(picture_features(model, prepared[None]), model(prepared[None]))


def test_a_checkpoint_of_timm_with_its_classifier_and_another_size_of_pictures(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("test_vit", pretrained=False, num_classes=7).eval()
    for path in (tmp_path / "whole.safetensors", tmp_path / "whole.pth"):
        write = save_file if path.suffix == ".safetensors" else torch.save
        write({name: t.contiguous() for name, t in whole.state_dict().items()}, path)
        ours = load_vision("timm/test_vit", path)
        x = torch.randn(2, 3, 160, 160)
        with torch.no_grad():
            expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
            torch.testing.assert_close(picture_features(ours, x), expected)
    smaller = load_vision("timm/test_vit", path, image_size=96)
    whole.set_input_size(img_size=96)
    x = torch.randn(2, 3, 96, 96)
    assert preprocessing_of(smaller).size == 96
    with torch.no_grad():
        expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
        torch.testing.assert_close(picture_features(smaller, x), expected)
    with pytest.raises(SerialLoRAError, match="another model's weights"):
        load_vision("timm/test_vit2", path)
