"""One factor from latents to pixels, the model's own."""

from __future__ import annotations

from types import SimpleNamespace

import comfy.latent_formats
from hrv_pack.host.models.latents import pixels_per_position
from hrv_pack.host.work.sampling import sample_latents
from hrv_pack.tests.support.small_host import encoded, small_clip_sd15, small_sd15


class Coarse(comfy.latent_formats.SD15):
    """Latents of whose positions each shows 16 x 16 pixels."""

    spacial_downscale_ratio = 16


def test_pictures_of_a_size_in_pixels_have_the_latents_of_their_model() -> None:
    model = small_sd15()
    coarse = model.clone()
    coarse.add_object_patch("latent_format", Coarse())
    prompt = encoded(small_clip_sd15(), "a red car")
    settings = SimpleNamespace(steps=1, cfg=1.0, sampler_name="euler", scheduler="normal", width=256, height=128)
    for each, pixels, side in ((model, 8, (16, 32)), (coarse, 16, (8, 16))):
        assert pixels_per_position(each) == pixels
        latents = sample_latents(each, [1, 2], prompt, prompt, settings, lambda: None)
        assert latents.shape == (2, 4, *side)
