"""A tiny CLIP's text tower as the text encoders and tokenizers that Stable Diffusion 3 asks for.

SD3 reads a prompt with two CLIP text encoders of different depth (and with T5, which its pipeline
can do without). The tiny SD3 gets both from the one tiny CLIP: its whole text tower, and the same
tower cut short after two layers, where a token still stands for little more than its own word.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from open_clip.tokenizer import bytes_to_unicode
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

SHORT_LAYERS = 2
START, END = "<|startoftext|>", "<|endoftext|>"


def text_encoder(model: nn.Module, layers: int | None = None) -> CLIPTextModelWithProjection:
    """transformers' text encoder with the weights of an open_clip CLIP's causal text tower.

    Args:
        layers: how many of its layers to keep, from the first; None for all.
    """
    vocabulary, width = model.token_embedding.weight.shape
    blocks = list(model.transformer.resblocks)[:layers]
    encoder = CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            intermediate_size=blocks[0].mlp.c_fc.out_features,
            projection_dim=model.text_projection.shape[1],
            num_hidden_layers=len(blocks),
            num_attention_heads=blocks[0].attn.num_heads,
            max_position_embeddings=len(model.positional_embedding),
            hidden_act="gelu",
            bos_token_id=vocabulary - 2,
            eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        )
    )
    text = encoder.text_model
    pairs = [(text.embeddings.token_embedding, model.token_embedding)]
    pairs += [(text.final_layer_norm, model.ln_final)]
    for layer, block in zip(text.encoder.layers, blocks, strict=True):
        pairs += [(layer.layer_norm1, block.ln_1), (layer.layer_norm2, block.ln_2)]
        pairs += [(layer.mlp.fc1, block.mlp.c_fc), (layer.mlp.fc2, block.mlp.c_proj)]
        pairs += [(layer.self_attn.out_proj, block.attn.out_proj)]
    for own, given in pairs:
        own.load_state_dict(given.state_dict())
    with torch.no_grad():
        text.embeddings.position_embedding.weight.copy_(model.positional_embedding)
        encoder.text_projection.weight.copy_(model.text_projection.T)
        for layer, block in zip(text.encoder.layers, blocks, strict=True):
            of = layer.self_attn
            packed = block.attn.in_proj_weight.chunk(3), block.attn.in_proj_bias.chunk(3)
            for own, weight, bias in zip((of.q_proj, of.k_proj, of.v_proj), *packed, strict=True):
                own.weight.copy_(weight)
                own.bias.copy_(bias)
    return encoder.eval()


def clip_tokenizer(merges: Path, length: int) -> CLIPTokenizer:
    """transformers' tokenizer over open_clip's gzipped merges, with its numbering of the tokens.

    Args:
        length: of the longest prompt in tokens, start and end counted.
    """
    _, *lines = gzip.decompress(merges.read_bytes()).decode().splitlines()  # a title comes first
    letters = list(bytes_to_unicode().values())
    words = [line.replace(" ", "") for line in lines]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *words, START, END]
    return CLIPTokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[tuple(line.split()) for line in lines],
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=length,
    )
