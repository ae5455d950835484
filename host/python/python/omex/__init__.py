"""Run AI models on hardware that is too small for them.

>>> import omex
>>> model = omex.open("stories.omex", memory=64_000_000)
>>> for piece in model.generate("Once upon a time", max_tokens=40):
...     print(piece, end="", flush=True)
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from . import _omex
from ._omex import Error, Generation

__all__ = ["Error", "Generation", "Model", "Sampling", "Tensor", "open", "plan"]


class Sampling(TypedDict, total=False):
    """How a text is gone on with; without any of these, the most likely token is taken until the model ends it."""

    max_tokens: int | None
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    seed: int
    stop: Sequence[str]


class Tensor(TypedDict):
    """What an input or an output is."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


def plan(
    path: str | PathLike[str], *, memory: int | None = None, context: int | None = None
) -> dict[str, Any]:
    """Where every byte of memory would go, as ``omex plan --json`` says it; opens no weights."""
    return json.loads(_omex.plan(path, memory, context))


def open(
    path: str | PathLike[str],
    *,
    memory: int | None = None,
    context: int | None = None,
    threads: int | None = None,
    logits: int = 1,
) -> Model:
    """Opens a package or a flash image within ``memory`` bytes.

    ``logits`` is for how many tokens one pass computes them: more are faster in :meth:`Model.logits`, and take memory.
    """
    return Model(_omex.Model(path, memory, context, threads, logits))


class Model:
    """A model that is open. Threads may share it, and one at a time uses it; passes run without Python's lock."""

    def __init__(self, model: _omex.Model) -> None:
        self._model = model

    @property
    def plan(self) -> dict[str, Any]:
        """Where every byte of memory goes."""
        return json.loads(self._model.plan())

    @property
    def inputs(self) -> dict[str, Tensor]:
        """What the model takes, if it takes arrays."""
        return _tensors(self._model.inputs())

    @property
    def outputs(self) -> dict[str, Tensor]:
        """What the model gives."""
        return _tensors(self._model.outputs())

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, with those that the tokenizer puts around it."""
        return self._model.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some tokens."""
        return self._model.decode(list(ids))

    def generate(self, prompt: str | Iterable[int], **sampling: Unpack[Sampling]) -> Generation:
        """The text behind a prompt, piece by piece, as fast as the pieces are taken.

        A prompt that begins as the last text did is run from there on. ``close()`` ends a text early.
        """
        ids = self.encode(prompt) if isinstance(prompt, str) else list(prompt)
        return self._generate(ids, **sampling)

    def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Generation:
        """The answer to a conversation, by the model's chat template: maps with ``role`` and ``content``."""
        given = None if tools is None else json.dumps(tools)
        ids = self._model.chat_prompt(json.dumps(messages), given, int(time.time()))
        return self._generate(ids, **sampling)

    def _generate(
        self,
        ids: list[int],
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        seed: int = 0,
        stop: Sequence[str] = (),
    ) -> Generation:
        return self._model.generate(
            ids, max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed, list(stop)
        )

    def embed(self, texts: str | Iterable[str], *, prompt: str | None = None) -> NDArray[np.float32]:
        """Texts as vectors, ``[texts, width]``; of one text, ``[width]``. ``prompt`` is what kind of texts they are."""
        one = isinstance(texts, str)
        vectors = _rows(self._model.embed([texts] if isinstance(texts, str) else list(texts), prompt))
        return vectors[0] if one else vectors

    def logits(self, text: str | Iterable[int]) -> NDArray[np.float32]:
        """The logits behind each token of a text, ``[tokens, vocabulary]``."""
        return _rows(self._model.logits(self.encode(text) if isinstance(text, str) else list(text)))

    def infer(
        self, inputs: NDArray[Any] | Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The outputs by name. An array that lies in one piece is copied once, to where the engine has it."""
        expected = self.inputs
        if not isinstance(inputs, Mapping):
            if len(expected) != 1:
                raise Error(f"give the inputs by name: {', '.join(expected) or 'there are none'}")
            inputs = {name: inputs for name in expected}
        if inputs.keys() != expected.keys():
            raise Error(f"found inputs {sorted(inputs)}, expected {sorted(expected)}")
        data = [_bytes(name, inputs[name], tensor) for name, tensor in expected.items()]
        made = zip(self.outputs.items(), self._model.infer(data), strict=True)
        return {
            name: np.frombuffer(data, tensor["dtype"]).reshape(tensor["shape"])
            for (name, tensor), data in made
        }


def _tensors(described: list[tuple[str, str, list[int]]]) -> dict[str, Tensor]:
    return {
        name: {"dtype": np.dtype(dtype), "shape": tuple(shape)} for name, dtype, shape in described
    }


def _rows(found: tuple[bytearray, int]) -> NDArray[np.float32]:
    data, width = found
    return np.frombuffer(data, np.float32).reshape(-1, width or 1)


def _bytes(name: str, array: NDArray[Any], tensor: Tensor) -> memoryview:
    """An array's bytes, where they lie; leading dimensions may be left out or split, types never differ."""
    array = np.asarray(array)
    count = int(np.prod(tensor["shape"]))
    if array.dtype != tensor["dtype"] or array.size != count:
        raise Error(
            f'input "{name}": found {array.dtype} {list(array.shape)}, expected {tensor["dtype"]} '
            f"{list(tensor['shape'])}: give an array of this type and as many elements"
        )
    return memoryview(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
