"""CLIP Text Encode (HRV): a conditioning that knows its words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.prompts.encoding import encode_prompt
from .menu import PROMPT
from .node import Node
from .outputs import encoded_output


class TextEncode(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_TextEncode",
            display_name="CLIP Text Encode (HRV)",
            category=PROMPT,
            description="Encodes a prompt exactly as CLIP Text Encode does and remembers which token belongs to which "
            "word, so that HRV controls can find words by name.",
            search_aliases=["prompt", "text", "clip text encode", "tokens", "words", "attention", "style"],
            inputs=[
                io.Clip.Input(
                    "clip", tooltip="The text encoder of your model. docs/architectures.md lists which ones work."
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    tooltip="The prompt; weights like (red:1.2) work.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="For HRV controls, or straight for a sampler.")],
        )

    @classmethod
    def execute(cls, clip: Any, text: str) -> io.NodeOutput:
        return encoded_output(encode_prompt(clip, text)[0], text)
