import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from adiff.backbone.layout import unet_config, unet_names, vae_config, vae_names
from adiff.errors import InputError

UNETS = {
    "sd15": (  # the model card's configuration
        dict(block_out_channels=(320, 640, 1280, 1280), attention_head_dim=8, cross_attention_dim=768, sample_size=64),
        2,
    ),
    "demo": (
        dict(block_out_channels=(96, 192), attention_head_dim=4, cross_attention_dim=768, sample_size=16,
             layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",) * 2,
             up_block_types=("CrossAttnUpBlock2D",) * 2),
        1,
    ),
}  # fmt: skip
VAES = {"sd15": ((128, 256, 512, 512), 2), "small": ((32, 64, 64), 1)}


def make_unet(which):
    settings, layers = UNETS[which]
    with torch.device("meta"):
        return UNet2DConditionModel(**settings), layers


def make_vae(which):
    channels, layers = VAES[which]
    sides = dict(down_block_types=["DownEncoderBlock2D"] * len(channels), latent_channels=4, layers_per_block=layers,
                 up_block_types=["UpDecoderBlock2D"] * len(channels), block_out_channels=channels)  # fmt: skip
    with torch.device("meta"):
        return AutoencoderKL(**sides)


def converted(names, convert, config):
    """Where diffusers' own converter puts the weight that each single-file name stands for."""
    # each weight is told from the others by its own length
    marked = {key: torch.empty(index + 1, device="meta") for index, key in enumerate(names.values())}
    found = convert(dict(marked), dict(config))
    by_length = {len(tensor): key for key, tensor in marked.items()}
    return {name: by_length[len(tensor)] for name, tensor in found.items()}


@pytest.mark.parametrize("which", UNETS)
def test_unet_names_are_those_of_diffusers_converter(which):
    unet, layers = make_unet(which)
    names = unet_names(unet.state_dict(), layers)
    assert converted(names, convert_ldm_unet_checkpoint, unet.config) == names


@pytest.mark.parametrize("which", VAES)
def test_vae_names_are_those_of_diffusers_converter(which):
    vae = make_vae(which)
    names = vae_names(vae.state_dict(), len(VAES[which][0]))

    def convert(marked, config):  # which makes linear layers of the attention's 1 x 1 convolutions
        wide = {k: t[:, None, None, None] if ".attn_1." in k and k.endswith("weight") else t for k, t in marked.items()}
        return convert_ldm_vae_checkpoint(wide, config)

    assert converted(names, convert, vae.config) == names


def test_names_of_known_weights():
    """As the published SD 1.5 file has them."""
    unet, layers = make_unet("sd15")
    names = unet_names(unet.state_dict(), layers)
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert names[attention] == "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
    assert names["up_blocks.0.upsamplers.0.conv.bias"] == "model.diffusion_model.output_blocks.2.1.conv.bias"
    assert len(set(names.values())) == len(names) == 686


@pytest.mark.parametrize("which", UNETS)
def test_unet_configuration_is_read_from_the_shapes(which):
    unet, layers = make_unet(which)
    names = unet_names(unet.state_dict(), layers)
    vae = make_vae("sd15")
    shapes = {names[n]: tuple(t.shape) for n, t in unet.state_dict().items()}
    shapes |= {key: tuple(vae.state_dict()[n].shape) for n, key in vae_names(vae.state_dict(), 4).items()}
    given = UNETS[which][0]
    extra = {"heads": given["attention_head_dim"], "native_size": 8 * given["sample_size"]}
    found = unet_config(shapes, {} if which == "sd15" else extra)
    for name, value in found.items():
        expected = unet.config[name]
        assert value == (list(expected) if isinstance(expected, tuple) else expected), name


def test_vae_configuration_is_read_from_the_shapes():
    vae = make_vae("sd15")
    names = vae_names(vae.state_dict(), 4)
    found = vae_config({names[n]: tuple(t.shape) for n, t in vae.state_dict().items()}, {})
    assert found["block_out_channels"] == [128, 256, 512, 512] and found["layers_per_block"] == 2
    assert (found["latent_channels"], found["scaling_factor"], found["norm_num_groups"]) == (4, 0.18215, 32)


def test_a_weight_without_a_place_is_refused():
    with pytest.raises(InputError, match="add_embedding.linear_1.weight has no place"):
        unet_names(["add_embedding.linear_1.weight"], 2)
