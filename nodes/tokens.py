"""HRV Tokens, Tag Conditioning and Conditioning Concat: conditionings and the words that they know."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.prompts.carried import CONTROLS_KEY, READINGS_KEY, token_maps
from ..host.prompts.encoding import tag_conditioning
from ..host.prompts.joining import concatenate
from ..hrv.controls.description import prompt_text
from .menu import PROMPT
from .node import Node
from .outputs import encoded_output, text_output


class Tokens(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_Tokens",
            display_name="HRV Tokens",
            category=PROMPT,
            description="Shows the words of a prompt with the positions of their tokens, and the controls that the "
            "conditioning carries.",
            search_aliases=["show tokens", "token positions", "words", "inspect conditioning", "tokenizer"],
            is_output_node=True,
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="From CLIP Text Encode (HRV), or from an HRV control.")
            ],
            outputs=[
                io.String.Output(
                    "text", display_name="text", tooltip="What the node shows: a line for each word and each control."
                )
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, conditioning: Any) -> io.NodeOutput:
        texts = [
            prompt_text(tokens, extras.get(CONTROLS_KEY, ()), [one.reading for one in extras.get(READINGS_KEY, ())])
            for tokens, (_, extras) in zip(token_maps(conditioning), conditioning, strict=True)
        ]
        # Entries of a schedule have the same words.
        text = "\n\n".join(dict.fromkeys(texts))
        return text_output(cls, text, text)


class TagConditioning(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_TagConditioning",
            display_name="Tag Conditioning (HRV)",
            category=PROMPT,
            description="Lets HRV controls find words by name in a prompt that another node encoded: it tells the "
            "conditioning which token belongs to which word.",
            search_aliases=["token map", "other text encoder", "foreign conditioning", "words"],
            inputs=[
                io.Conditioning.Input("conditioning", tooltip="Made from this text by any node that encodes prompts."),
                io.Clip.Input("clip", tooltip="The CLIP it was made with."),
                io.String.Input("text", multiline=True, tooltip="Exactly the text it was made from."),
            ],
            outputs=[io.Conditioning.Output(tooltip="The same conditioning, which now knows its words.")],
        )

    @classmethod
    def execute(cls, conditioning: Any, clip: Any, text: str) -> io.NodeOutput:
        return encoded_output(tag_conditioning(conditioning, clip, text), text)


class ConditioningConcat(Node):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="HRV_ConditioningConcat",
            display_name="Conditioning Concat (HRV)",
            category=PROMPT,
            description="Appends one conditioning to another exactly as Conditioning (Concat) does, and keeps the "
            "words and HRV controls of both.",
            search_aliases=["concatenate prompts", "append", "join conditioning", "break"],
            inputs=[
                io.Conditioning.Input("conditioning_to", tooltip="Comes first; its area, hooks and so on are kept."),
                io.Conditioning.Input("conditioning_from", tooltip="Its tokens and its controls are appended."),
            ],
            outputs=[io.Conditioning.Output(tooltip="Both prompts in one, with the words and the controls of both.")],
        )

    @classmethod
    def execute(cls, conditioning_to: Any, conditioning_from: Any) -> io.NodeOutput:
        return io.NodeOutput(concatenate(conditioning_to, conditioning_from))
